//! The stylesheet, the scripts and the plot library, which are part of the program.
//!
//! Browsers store them: their addresses contain a fingerprint of their contents, so another version has other addresses.
//!
//! uPlot (MIT, `assets/uplot/LICENSE`) is unchanged. The pages do not use datastar: it compiles the expressions of its
//! attributes with `Function`, which the content security policy `default-src 'self'` forbids.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\"><rect width=\"16\" height=\"16\" \
                    rx=\"3\" fill=\"#0a58b5\"/><path d=\"M4 12V4l4 4 4-4v8\" fill=\"none\" stroke=\"#fff\" stroke-width=\"2\"/></svg>";

/// All assets, each with its name, type and content.
pub(crate) const ASSETS: [(&str, &str, &str); 4] = [
    // One stylesheet is one request: the page is shown after the last one.
    ("console.css", CSS, concat!(include_str!("../assets/uplot/uPlot.min.css"), include_str!("../assets/console.css"))),
    ("console.js", SCRIPT, include_str!("../assets/console.js")),
    ("uplot.js", SCRIPT, include_str!("../assets/uplot/uPlot.iife.min.js")),
    ("icon.svg", "image/svg+xml", ICON),
];

/// The fingerprint of all assets.
static FINGERPRINT: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    ASSETS.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
});

/// Returns the link to an asset.
pub(crate) fn href(name: &str) -> String {
    format!("/assets/{name}?{}", *FINGERPRINT)
}

/// Serves an asset.
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => {
            let stored = "private, max-age=31536000, immutable";
            ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, stored)], *content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
