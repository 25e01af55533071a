//! What people see while pods run: containers' output under their names, quiet lines for what happens, pull bars.

pub(crate) mod label;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod style;
pub(crate) mod thread;
pub(crate) mod view;
pub(crate) mod watch;
