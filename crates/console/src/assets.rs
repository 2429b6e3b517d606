//! The stylesheet, the scripts and the plot library, which are part of the program.
//!
//! uPlot (MIT, `assets/uplot/LICENSE`) is unchanged. The pages do not use datastar: it compiles the expressions of its
//! attributes with `Function`, which the content security policy `default-src 'self'` forbids.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\"><rect width=\"16\" height=\"16\" \
                    rx=\"3\" fill=\"#0a58b5\"/><path d=\"M4 12V4l4 4 4-4v8\" fill=\"none\" stroke=\"#fff\" stroke-width=\"2\"/></svg>";

/// All assets, each with its name, type and content.
pub(crate) const ASSETS: [(&str, &str, &str); 5] = [
    ("console.css", CSS, include_str!("../assets/console.css")),
    ("console.js", SCRIPT, include_str!("../assets/console.js")),
    ("uplot.css", CSS, include_str!("../assets/uplot/uPlot.min.css")),
    ("uplot.js", SCRIPT, include_str!("../assets/uplot/uPlot.iife.min.js")),
    ("icon.svg", "image/svg+xml", ICON),
];

/// Serves an asset.
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => ([(header::CONTENT_TYPE, *kind)], *content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
