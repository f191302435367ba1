//! A bulk port for tests: mutual TLS and HTTP/1.1, with every request handed to the replicas. It can be cut: it then
//! accepts, and says nothing more on any connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use meridian_replica::PeerHandler;
use meridian_wire::tls::Identity;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub struct Port {
    pub address: SocketAddr,
    cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Port {
    pub async fn serve(identity: &Identity, handler: PeerHandler, address: Option<SocketAddr>) -> Port {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(address.unwrap_or(loopback)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = watch::Sender::new(false);
        let acceptor = TlsAcceptor::from(identity.rustls_server());
        let seen = cut.subscribe();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // dropped with the port: a kill ends them
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, mut seen) = (acceptor.clone(), Arc::clone(&handler), seen.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let chain = stream.get_ref().1.peer_certificates();
                    let certificate = chain.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
                    let answers = seen.clone();
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (handler, certificate) = (Arc::clone(&handler), certificate.clone());
                        let mut answers = answers.clone();
                        async move {
                            let _ = answers.wait_for(|cut| !*cut).await;
                            let answer = handler(certificate, request).await;
                            let _ = answers.wait_for(|cut| !*cut).await;
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    let _ = seen.wait_for(|cut| !*cut).await;
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Port { address, cut, task }
    }

    /// From here on nothing is answered; what is under way is held until it is healed.
    pub fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
