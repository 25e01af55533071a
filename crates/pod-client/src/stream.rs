//! What is no request and answer: exec and attach (`remote`), port-forward (`forward`), over WebSockets.

pub mod forward;
pub mod remote;
pub(crate) mod websocket;
