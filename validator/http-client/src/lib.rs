//! The one door to HTTP: time and size limits, redirects, credentials, retries and byte ranges,
//! decided once for the hub, the sources of samples and W&B.
//!
//! - **Time.** A request that is read whole ([`HttpRequest`]) has one deadline over all its
//!   attempts. A file read by ranges ([`RangeReader`]) may take as long as its size asks for, but
//!   no connection may be silent for [`Timeouts::stall`] or only trickle.
//! - **Size.** A body is never longer than the request allows, counted after decompression.
//! - **Redirects** lead to https, or from this machine to this machine; credentials go to the
//!   origin of the first address only, and never unencrypted over a network.
//! - **Retries** follow one [`RetryPolicy`], which honors `Retry-After` and `RateLimit`.

mod client;
mod credentials;
mod error;
mod headers;
mod observer;
mod pace;
mod range;
mod redirect;
mod remote;
mod request;
mod retry;

pub use client::{HttpClient, HttpOptions, SetupError, Timeouts};
pub use credentials::{Credentials, InvalidToken};
pub use error::{HttpError, shown, without_user};
pub use observer::HttpObserver;
pub use range::RangeReader;
pub use redirect::keeps_secrets;
pub use remote::RemoteFile;
pub use request::{Body, HttpRequest};
pub use reqwest::{StatusCode, header};
pub use retry::RetryPolicy;
