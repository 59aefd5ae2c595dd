//! The connections of a port: how many there are at once, and how long a caller may be silent, take nothing of its
//! answer, or keep its place while others wait. Whoever may not read anything can't keep others from it.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, http::Request};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a caller may take to say what it wants, and a connection may stand unused.
const SILENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 30 });
/// How long a caller may take nothing of what it is sent.
const STALLED: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
/// After so long, a connection ends with the answer that is being given: new ones have their turn.
const LIFETIME: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 60 });
/// How long that answer may still take, also of a caller that takes it drop by drop.
const LAST_ANSWER: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });

/// In the extensions of a response: how long it may go on. One without it ends within `LAST_ANSWER`.
#[derive(Clone, Copy, Debug)]
pub struct Lasts(pub Duration);

/// Serves until `stop`, and then what is being answered. Beyond so many connections new ones wait.
pub async fn serve(listener: TcpListener, router: Router, connections: usize, stop: CancellationToken) {
    serve_by(None, listener, router, connections, stop).await;
}

/// The same by https.
pub async fn serve_encrypted(
    tls: TlsAcceptor,
    listener: TcpListener,
    router: Router,
    connections: usize,
    stop: CancellationToken,
) {
    serve_by(Some(tls), listener, router, connections, stop).await;
}

async fn serve_by(
    tls: Option<TlsAcceptor>,
    listener: TcpListener,
    router: Router,
    connections: usize,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections));
    let served = TaskTracker::new();
    while let Some((stream, place)) = stop.run_until_cancelled(accept(&listener, &places)).await {
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        served.spawn(async move {
            let stream = Impatient::new(stream);
            match tls {
                None => converse(stream, router, &stop).await,
                Some(tls) => {
                    let agreed = stop.run_until_cancelled(timeout(SILENCE, tls.accept(stream))).await;
                    if let Some(Ok(Ok(stream))) = agreed {
                        converse(stream, router, &stop).await;
                    }
                }
            }
            drop(place);
        });
    }
    served.close();
    served.wait().await;
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: &CancellationToken,
) {
    let more = Arc::new(Mutex::new(Duration::ZERO));
    let (router, lasts) = (TowerToHyperService::new(router), more.clone());
    let answers = service_fn(move |request: Request<Incoming>| {
        let (answer, lasts) = (router.call(request), lasts.clone());
        async move {
            let answer = answer.await?;
            let longer = answer.extensions().get::<Lasts>().map_or(Duration::ZERO, |Lasts(longer)| *longer);
            *lasts.lock().unwrap_or_else(PoisonError::into_inner) = longer;
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(SILENCE)
        .serve_connection(TokioIo::new(stream), answers);
    let mut connection = pin!(connection);
    let has_ended = tokio::select! {
        _ = connection.as_mut() => true,
        () = stop.cancelled() => false,
        () = sleep(LIFETIME) => false,
    };
    if !has_ended {
        connection.as_mut().graceful_shutdown();
        // A caller that breaks off is its own affair.
        if timeout(LAST_ANSWER, connection.as_mut()).await.is_err() {
            let longer = *more.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = timeout(longer, connection).await;
        }
    }
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // The process has no more file descriptors, or the caller has gone.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A stream that fails where its caller takes nothing for long.
struct Impatient {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    const fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: None }
    }

    fn in_time<T>(&mut self, context: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.in_time(context, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
