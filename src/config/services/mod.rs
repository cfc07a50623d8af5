//! What each provider's rows have beside the keys that all rows have.

pub mod aws;
mod azure;
mod dialect;
mod google;
mod oci;

pub use azure::{Azure, AzureAuth, Entra, EntraIdentity};
pub use dialect::{Dialect, FimRoute, Routing};
pub use google::{
    BadKey, ExternalAccount, GoogleCredentials, Impersonation, ServiceAccountKey, Subject,
    SubjectPlace, Thinking, Vertex, VertexApi,
};
pub use oci::{KeyError, OciChat, OciFormat, OciKey, OciServing};
