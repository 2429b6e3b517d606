//! Sends a request body of our own through the SDK's `PutItem`.
//!
//! A stream image already is the JSON that `PutItem` takes. Decoding it into the SDK's attribute values only for the
//! SDK to write them out again would cost more than all else this function does, and each type is a chance to change
//! a value. So the body is spliced from the image's own bytes, and put in place of the SDK's before the request is
//! signed; the endpoint, the signature, the retries and the reading of errors stay the SDK's.
//!
//! The body travels beside the call in a task-local, because an interceptor per call costs a copy of the client's
//! whole configuration per call. It is placed once, before the retry loop, from where each attempt clones it for free.

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

/// Puts the body of [`with_raw_body`] into the request; calls made without it keep the SDK's.
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
