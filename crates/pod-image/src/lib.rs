//! OCI images: references, registries, the store of unpacked layers, import, pack, and the host as an image.
//!
//! ```text
//! Reference ─pull▶ ┐                          ┌▶ Image { layers, config }   lookup, list
//! archive ─import▶ ├▶ blobs ─unpack▶ layers ─▶┤
//! files ────pack▶  ┘     in the Store         └▶ push, export
//! ```
//!
//! An [`Image`]'s layers are directories that overlayfs mounts as they are; how to start a container on them is the
//! business of others. [`pull()`] and [`push()`] are async and fit a current-thread runtime; all else blocks and belongs
//! on a blocking thread. A store may be used by several processes at once and survives being killed: see [`Store`].

#![forbid(unsafe_code)]

mod builtin;
mod compression;
mod credentials;
mod digest;
mod export;
mod host_userland;
mod import;
mod manifest;
mod pack;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
mod registry;
mod store;
mod unpack;

pub use builtin::{Builtin, BuiltinError, builtin};
pub use compression::Compression;
pub use credentials::{Credential, Credentials, CredentialsError};
pub use digest::{Digest, DigestError};
pub use export::{ExportError, export};
pub use host_userland::{HostUserland, HostUserlandError, host_userland};
pub use import::{ImportError, ImportOptions, ImportSource, import};
pub use manifest::{ImageConfig, ManifestError};
pub use pack::{PackError, PackSpec, pack};
pub use platform::Platform;
pub use progress::{Progress, PullProgress, Silent};
pub use pull::{PullError, PullOptions, pull};
pub use push::{PushError, PushOptions, push};
pub use reference::{ParseReferenceError, Reference};
pub use registry::{Registries, RegistriesError, RegistryConfig, RegistryError};
pub use store::{GcReport, Image, Lease, OpenError, Store, StoreError, StoreSize};
pub use unpack::{Limits, UnpackError};
