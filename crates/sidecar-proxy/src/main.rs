//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    daemon::run::<sidecar_proxy::Proxy>()
}
