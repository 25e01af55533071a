//! A registry of one's own, and a bad line to it.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// `user` with the password `secret`, as `htpasswd -B -C 4` writes it: quick to check.
const HTPASSWD: &str = "user:$2b$04$pZLFxMzSAFDf3XkTNeUJkeMbw6mAfu50YqQfAOtETDVKKUkD3W39S\n";

/// Killed and removed when dropped.
pub(crate) struct Registry {
    process: Child,
    directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Registry {
    pub(crate) fn start() -> Registry {
        Registry::with("")
    }

    pub(crate) fn with_password() -> Registry {
        Registry::with("auth: { htpasswd: { realm: test, path: DIR/htpasswd } }\n")
    }

    /// HTTPS with a certificate for 127.0.0.1 that only [`Registry::certificate`] vouches for.
    pub(crate) fn with_tls() -> Registry {
        Registry::with("  tls: { certificate: DIR/cert.pem, key: DIR/key.pem }\n")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    fn with(more: &str) -> Registry {
        let directory = tempfile::tempdir().unwrap();
        let shown = directory.path().display().to_string();
        fs::write(directory.path().join("htpasswd"), HTPASSWD).unwrap();
        if more.contains("cert.pem") {
            make_certificate(directory.path());
        }
        // The port may be taken between finding and using it.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let config = format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {shown}/data }} }}\n\
                 http:\n  addr: \"127.0.0.1:{port}\"\n{}",
                more.replace("DIR", &shown)
            );
            let path = directory.path().join("config.yml");
            fs::write(&path, config).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("docker-registry is needed: apt-get install docker-registry");
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(20) {
                if process.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Registry { process, directory, port };
                }
                thread::sleep(Duration::from_millis(20));
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("docker-registry did not start");
    }

    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Where it keeps a blob.
    pub(crate) fn blob(&self, hex: &str) -> PathBuf {
        let below = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.directory.path().join(below)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn make_certificate(directory: &Path) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    // Not an authority itself, or it could not be a server's.
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(directory.join("key.pem")).arg("-out").arg(directory.join("cert.pem"));
    let output = openssl.output().expect("openssl is needed: apt-get install openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Passes connections on and ends each after so many bytes of answer, or falls silent (`stall`).
pub(crate) struct BadLine {
    pub(crate) port: u16,
    /// Bytes of answers so far.
    pub(crate) passed: Arc<AtomicU64>,
    /// `u64::MAX` is a good line.
    pub(crate) limit: Arc<AtomicU64>,
}

impl BadLine {
    pub(crate) fn to(port: u16, limit: u64, stall: bool) -> BadLine {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let (passed, limit) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(limit)));
        let (counter, bound) = (passed.clone(), limit.clone());
        // The threads end with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port))) else { return };
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = std::io::copy(&mut up_from, &mut up_to);
                    let _ = up_to.shutdown(Shutdown::Write);
                });
                let (counter, bound) = (counter.clone(), bound.clone());
                thread::spawn(move || answer(server, client, &counter, &bound, stall));
            }
        });
        BadLine { port: own, passed, limit }
    }
}

fn answer(mut server: TcpStream, mut client: TcpStream, counter: &AtomicU64, bound: &AtomicU64, stall: bool) {
    let mut sent = 0;
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = server.read(&mut buffer) {
        if read == 0 || client.write_all(&buffer[..read]).is_err() {
            break;
        }
        sent += read as u64;
        counter.fetch_add(read as u64, Ordering::SeqCst);
        if sent >= bound.load(Ordering::SeqCst) {
            if stall {
                thread::sleep(Duration::from_secs(30));
            }
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
