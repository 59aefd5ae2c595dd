//! A line to Postgres or the API server that a test can cut: at once, for a while, or just when a
//! transaction is to be committed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
};

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Connections are cut, new ones refused.
    Down,
    /// Connections stay, new ones are taken, and nothing comes through.
    Silent,
}

pub struct Proxy {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    commits: Arc<Commits>,
    task: AbortHandle,
}

/// What becomes of commits: of every `every`-th the connection is cut, in turn before the server has
/// it and before its answer has come back.
#[derive(Debug, Default)]
struct Commits {
    seen: AtomicU32,
    /// 0: none.
    every: AtomicU32,
    cut: AtomicU32,
}

impl Proxy {
    /// A line to this host and port.
    pub async fn to(host: String, port: u16, line: Line) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let (line, state) = watch::channel(line);
        let commits = Arc::new(Commits::default());
        let task = tokio::spawn(serve(address, (host, port), state, commits.clone())).abort_handle();
        Self { address, line, commits, task }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// From now on every so many commits the line is cut; 0: no more.
    pub fn cut_commits(&self, every: u32) {
        self.commits.every.store(every, Ordering::SeqCst);
    }

    /// How many commits were cut.
    pub fn commits_cut(&self) -> u32 {
        self.commits.cut.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.line.send_replace(Line::Down);
        self.task.abort();
    }
}

async fn serve(address: SocketAddr, target: (String, u16), mut line: watch::Receiver<Line>, commits: Arc<Commits>) {
    loop {
        if line.wait_for(|line| *line != Line::Down).await.is_err() {
            return;
        }
        let listener = TcpListener::bind(address).await.expect("the port is still free");
        let state = line.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((client, _)) = accepted else { continue };
                    tokio::spawn(connect(client, target.clone(), state.clone(), commits.clone()));
                }
                _ = line.wait_for(|line| *line == Line::Down) => break,
            }
        }
    }
}

async fn connect(client: TcpStream, target: (String, u16), mut line: watch::Receiver<Line>, commits: Arc<Commits>) {
    let Ok(server) = TcpStream::connect((target.0.as_str(), target.1)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let answers_cut = AtomicBool::new(false);
    // Whichever ends first drops the connection's other half.
    tokio::select! {
        () = ask(from_client, to_server, line.clone(), &commits, &answers_cut) => {}
        () = answer(from_server, to_client, line.clone(), &answers_cut) => {}
        _ = line.wait_for(|line| *line == Line::Down) => {}
    }
}

async fn ask(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    commits: &Commits,
    answers_cut: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer).await {
        let _ = line.wait_for(|line| *line != Line::Silent).await;
        let message = &buffer[..count];
        // The simple query as Postgres' protocol has it; nothing else ends like this.
        if message.ends_with(b"COMMIT\0") {
            let number = commits.seen.fetch_add(1, Ordering::SeqCst) + 1;
            let every = commits.every.load(Ordering::SeqCst);
            if every > 0 && number.is_multiple_of(every) {
                if commits.cut.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                    return;
                }
                answers_cut.store(true, Ordering::SeqCst);
            }
        }
        if server.write_all(message).await.is_err() {
            return;
        }
    }
}

async fn answer(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
    answers_cut: &AtomicBool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        let _ = line.wait_for(|line| *line != Line::Silent).await;
        if answers_cut.load(Ordering::SeqCst) || client.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
