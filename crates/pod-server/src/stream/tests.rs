//! The real kubectl and bare sockets against [`answer`], with local processes for containers.

mod kubectl;
mod machine;
mod raw;
mod world;
