//! What each call passes before it is answered: it is counted, stalled, or failed.

use std::sync::Arc;

use jsonrpsee::{
    MethodResponse, ResponsePayload,
    core::middleware::{Batch, BatchEntry, Notification, RpcServiceT},
    types::{ErrorObjectOwned, Request},
};

use crate::chain::{faults::Reply, node::Node};

#[derive(Clone)]
pub(super) struct Watched<S> {
    pub(super) inner: S,
    pub(super) node: Arc<Node>,
}

impl<S> RpcServiceT for Watched<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse, BatchResponse = MethodResponse>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(
        &self,
        request: Request<'a>,
    ) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        let Self { inner, node } = self.clone();
        async move {
            let reply = node.faults.note_call(request.method_name());
            node.faults.wait_for(request.method_name()).await;
            match reply {
                Some(Reply::Error { code, message }) => MethodResponse::error(
                    request.id.clone(),
                    ErrorObjectOwned::owned(code, message, None::<()>),
                ),
                Some(Reply::Result(result)) => MethodResponse::response(
                    request.id.clone(),
                    ResponsePayload::success(result),
                    usize::MAX,
                ),
                None => inner.call(request).await,
            }
        }
    }

    fn batch<'a>(
        &self,
        requests: Batch<'a>,
    ) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        let Self { inner, node } = self.clone();
        async move {
            for entry in requests.iter().flatten() {
                if let BatchEntry::Call(request) = entry {
                    // An error meant for one call of a batch is not answered.
                    let _ = node.faults.note_call(request.method_name());
                    node.faults.wait_for(request.method_name()).await;
                }
            }
            inner.batch(requests).await
        }
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.inner.notification(notification)
    }
}
