//! Sends a prepared request body through the SDK's `PutItem`.
//!
//! A stream image already is the JSON that `PutItem` accepts. Decoding it into the SDK's attribute values only for the
//! SDK to serialize them again would cost more than everything else that this function does, and each type is a chance
//! to change a value. Therefore the body is assembled from the image's own bytes, and replaces the SDK's body before
//! the request is signed; the SDK still provides the endpoint, the signature, the retries and the parsing of errors.
//!
//! The body is passed to the interceptor in a task-local, because an interceptor per call requires a copy of the
//! client's complete configuration per call. It is set once, before the retry loop, from where each attempt clones it
//! at no cost.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;

tokio::task_local! {
    static BODY: Bytes;
}

/// Awaits an SDK call whose request carries `body`. The client must have [`RawBodyInterceptor`] among its interceptors.
pub(super) async fn with_raw_body<F: Future>(body: Bytes, call: F) -> F::Output {
    BODY.scope(body, call).await
}

/// Replaces the request's body with that of [`with_raw_body`]; calls made without it keep the SDK's body.
#[derive(Debug)]
pub(super) struct RawBodyInterceptor;

impl Intercept for RawBodyInterceptor {
    fn name(&self) -> &'static str {
        "SplicedBody"
    }

    fn modify_before_retry_loop(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Ok(body) = BODY.try_with(Bytes::clone) {
            let request = context.request_mut();
            request.headers_mut().try_insert("content-length", body.len().to_string())?;
            *request.body_mut() = SdkBody::from(body);
        }
        Ok(())
    }
}
