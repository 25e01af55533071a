//! Local processes instead of containers.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::process::Command;

use crate::machine::{Answer, ContainerRef, ContainerUsage, Ended, Machine, Session, StreamError, StreamRequest};

pub(super) struct Local {
    pub(super) logs: PathBuf,
}

impl Machine for Local {
    fn exec(&self, target: ContainerRef, request: StreamRequest) -> Answer<Result<Session, StreamError>> {
        Box::pin(async move {
            if target.container == "stopped" {
                return Err(StreamError::NotRunning(target.container));
            }
            start(request).map_err(|error| StreamError::Failed(error.to_string()))
        })
    }

    fn attach(&self, target: ContainerRef, mut request: StreamRequest) -> Answer<Result<Session, StreamError>> {
        request.command = ["sh", "-c", "echo attached; cat; exit 3"].map(str::to_owned).to_vec();
        self.exec(target, request)
    }

    fn dial(&self, _: String, _: String, _: String, port: u16) -> Answer<Result<TcpStream, String>> {
        Box::pin(async move {
            TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("failed to connect: {error}"))
        })
    }

    fn log(&self, target: &ContainerRef, attempt: u32) -> PathBuf {
        self.logs.join(&target.container).join(format!("{attempt}.log"))
    }

    fn usage(&self, _: &str, _: &str, _: &str) -> Vec<ContainerUsage> {
        Vec::new()
    }

    fn node_usage(&self) -> (u64, u64) {
        (0, 0)
    }
}

fn start(request: StreamRequest) -> std::io::Result<Session> {
    if request.tty { start_terminal(request) } else { start_pipes(request) }
}

fn start_pipes(request: StreamRequest) -> std::io::Result<Session> {
    let pipe = |wanted| if wanted { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(&request.command[0])
        .args(&request.command[1..])
        .stdin(pipe(request.stdin))
        .stdout(pipe(request.stdout))
        .stderr(pipe(request.stderr))
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take().map(|end| end.into_owned_fd()).transpose()?;
    let stdout = child.stdout.take().map(|end| end.into_owned_fd()).transpose()?;
    let stderr = child.stderr.take().map(|end| end.into_owned_fd()).transpose()?;
    Ok(Session { stdin, stdout, stderr, resize: None, end: end(child) })
}

fn start_terminal(request: StreamRequest) -> std::io::Result<Session> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let open = || std::fs::File::options().read(true).write(true).open(name.to_str().unwrap()).map(OwnedFd::from);
    // The program of that name makes its standard input the controlling terminal.
    let child = Command::new("setsid")
        .args(["--ctty", "--wait"])
        .args(&request.command)
        .stdin(open()?)
        .stdout(open()?)
        .stderr(open()?)
        .kill_on_drop(true)
        .spawn()?;
    let (stdin, stdout) = (master.try_clone()?, master.try_clone()?);
    let resize = Box::new(move |columns: u16, rows: u16| {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(&master, size);
    });
    let stdin = request.stdin.then_some(stdin);
    Ok(Session { stdin, stdout: Some(stdout), stderr: None, resize: Some(resize), end: end(child) })
}

fn end(mut child: tokio::process::Child) -> Answer<Result<Ended, String>> {
    Box::pin(async move {
        let status = child.wait().await.map_err(|error| error.to_string())?;
        Ok(Ended::Exited(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)))
    })
}
