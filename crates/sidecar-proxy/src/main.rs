//! The binary; everything is in the library.

fn main() -> std::process::ExitCode {
    if let Some(code) = sidecar_proxy::trace::run(std::env::args().skip(1)) {
        return code;
    }
    daemon::run::<sidecar_proxy::Proxy>()
}
