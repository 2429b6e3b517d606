//! Metrics of the functions in Prometheus text format, the replacement for CloudWatch on this machine.
//!
//! A process has one recorder, so stacks that run in the same process (the tests) share their counters.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::clients;

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Returns the metrics of the process, which are recorded from the first call on.
pub fn prometheus_handle() -> PrometheusHandle {
    let install = || {
        let recorder = PrometheusBuilder::new().add_global_label("stack", clients::STACK_NAME).build_recorder();
        let handle = recorder.handle();
        if ::metrics::set_global_recorder(recorder).is_ok() {
            millrace_shared::metric::describe();
        } else {
            tracing::warn!("another metrics recorder is installed: GET /metrics returns no metrics");
        }
        handle
    };
    RECORDER.get_or_init(install).clone()
}

#[cfg(test)]
mod tests {
    #[test]
    fn incremented_metric_is_rendered_with_the_stack_name() {
        let handle = super::prometheus_handle();
        millrace_shared::metric::APPLIED_CHANGES.increment(["shown"], 3);
        let text = handle.render();
        let line = text
            .lines()
            .find(|line| line.contains("shown") && line.ends_with(" 3"))
            .unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(r#"stack="local""#), "{line}");
    }
}
