//! What is asked of an upstream and its token server, and what is kept of it.

use std::sync::Mutex as SyncMutex;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::upstream::{ReplicaRules, ReplicaSettings};

/// `user:hunter2`.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

/// A server that keeps what it was asked, and responds to each request by a function of its number and
/// its head.
struct Server {
    port: u16,
    asked: Arc<SyncMutex<Vec<String>>>,
}

impl Server {
    async fn start(respond: impl Fn(usize, &str) -> String + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<SyncMutex<Vec<String>>> = Arc::default();
        let heads = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        break;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let number = {
                    let mut heads = heads.lock().unwrap();
                    heads.push(head.clone());
                    heads.len() - 1
                };
                let response = respond(number, &head);
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        Server { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn unauthorized(challenge: &str) -> String {
    response(
        "401 Unauthorized",
        &format!("www-authenticate: {challenge}\r\n"),
        "",
    )
}

fn replica(port: u16) -> Replica {
    let name = format!("http://127.0.0.1:{port}");
    let settings = ReplicaSettings {
        target: name.parse().unwrap(),
        name,
        is_draining: false,
    };
    Replica::new("main".to_owned(), settings, &ReplicaRules::default())
}

fn credentials(realm: Option<&str>) -> UpstreamCredentials {
    let config = CredentialsConfig {
        username: "user".to_owned(),
        password: Secret::new("hunter2"),
        realm: realm.map(|realm| realm.parse().unwrap()),
        allow_push: false,
        tls: None,
    };
    UpstreamCredentials::new("main".to_owned(), config)
}

fn pull(repository: &str) -> AccessScope {
    let target = format!("/v2/{repository}/tags/list").parse().unwrap();
    AccessScope::of(&Method::GET, &target, false).unwrap()
}

#[tokio::test]
async fn a_password_is_sent_to_an_upstream_that_asks_for_one() {
    let server = Server::start(|_, _| unauthorized("Basic realm=\"x\"")).await;
    let (credentials, replica) = (credentials(None), replica(server.port));
    for _ in 0..3 {
        let sent = credentials.authorization(&replica, &pull("a")).await;
        assert_eq!(sent.unwrap(), BASIC);
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("GET /v2/ HTTP/1.1\r\n"), "{asked:?}");
    assert!(
        !asked[0].to_lowercase().contains("authorization"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_open_upstream_gets_no_password() {
    let server = Server::start(|_, _| response("200 OK", "", "{}")).await;
    let (credentials, replica) = (credentials(None), replica(server.port));
    for _ in 0..3 {
        assert!(
            credentials
                .authorization(&replica, &pull("a"))
                .await
                .is_none()
        );
    }
    assert_eq!(server.asked().len(), 1);
}

/// An upstream whose tokens the realm issues: `t0` is the first.
async fn issuing(realm: &'static str) -> Server {
    Server::start(move |number, head| {
        if head.starts_with("GET /token?") {
            let body = format!("{{\"token\": \"t{}\", \"expires_in\": 600}}", number - 1);
            return response("200 OK", "", &body);
        }
        let host = head
            .split("host: ")
            .nth(1)
            .and_then(|rest| rest.split('\r').next());
        let realm = realm.replace("HOST", host.unwrap_or_default());
        unauthorized(&format!("Bearer realm=\"{realm}\",service=\"s\""))
    })
    .await
}

#[tokio::test]
async fn a_token_is_asked_for_once_for_each_scope() {
    let server = issuing("http://HOST/token").await;
    let (credentials, replica) = (credentials(None), replica(server.port));
    let (a, b) = (pull("a"), pull("b"));
    let authorization = |scope| credentials.authorization(&replica, scope);
    let (first, second, third) =
        tokio::join!(authorization(&a), authorization(&a), authorization(&a));
    assert_eq!(first.as_ref().unwrap(), "Bearer t0");
    assert_eq!([&second, &third], [&first, &first]);
    assert_eq!(authorization(&b).await.unwrap(), "Bearer t1");
    assert_eq!(authorization(&a).await.unwrap(), "Bearer t0");
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    let line = "GET /token?service=s&scope=repository%3Aa%3Apull HTTP/1.1\r\n";
    assert!(asked[1].starts_with(line), "{asked:?}");
    assert!(asked[1].contains(BASIC), "{asked:?}");
}

#[tokio::test]
async fn a_realm_that_is_elsewhere_gets_no_password_unless_it_is_configured() {
    let tokens = issuing("").await;
    let realm = format!("http://127.0.0.1:{}/token", tokens.port);
    let challenge = format!("Bearer realm=\"{realm}\"");
    let server = Server::start(move |_, _| unauthorized(&challenge)).await;
    let replica = replica(server.port);
    let sent = credentials(None).authorization(&replica, &pull("a")).await;
    assert!(sent.is_none());
    let other = format!("http://127.0.0.1:{}/tokens", tokens.port);
    let sent = credentials(Some(&other))
        .authorization(&replica, &pull("a"))
        .await;
    assert!(sent.is_none());
    assert!(tokens.asked().is_empty());
    let credentials = credentials(Some(&realm));
    // What the server counts from: it has had no request for the challenge.
    tokens.asked.lock().unwrap().push(String::new());
    let sent = credentials.authorization(&replica, &pull("a")).await;
    assert_eq!(sent.unwrap(), "Bearer t0");
}

#[tokio::test]
async fn a_realm_without_tls_on_another_machine_gets_no_password() {
    let server =
        Server::start(|_, _| unauthorized("Bearer realm=\"http://192.0.2.1/token\"")).await;
    let credentials = credentials(Some("http://192.0.2.1/token"));
    let sent = credentials
        .authorization(&replica(server.port), &pull("a"))
        .await;
    assert!(sent.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_learnt_again_but_not_with_each_request() {
    let server = issuing("http://HOST/token").await;
    let (credentials, replica, scope) = (credentials(None), replica(server.port), pull("a"));
    let authorization = || credentials.authorization(&replica, &scope);
    assert_eq!(authorization().await.unwrap(), "Bearer t0");
    credentials.responded(&scope, true, true);
    assert_eq!(authorization().await.unwrap(), "Bearer t0");
    assert_eq!(server.asked().len(), 2);
    tokio::time::advance(PAUSE).await;
    credentials.responded(&scope, false, true);
    assert_eq!(authorization().await.unwrap(), "Bearer t0");
    credentials.responded(&scope, true, true);
    assert_eq!(authorization().await.unwrap(), "Bearer t2");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_replaced_before_it_expires() {
    let server = issuing("http://HOST/token").await;
    let (credentials, replica, scope) = (credentials(None), replica(server.port), pull("a"));
    let authorization = || credentials.authorization(&replica, &scope);
    assert_eq!(authorization().await.unwrap(), "Bearer t0");
    tokio::time::advance(Duration::from_secs(580)).await;
    assert_eq!(authorization().await.unwrap(), "Bearer t0");
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(authorization().await.unwrap(), "Bearer t1");
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_there_is_a_pause() {
    let server = Server::start(|_, _| response("503 Service Unavailable", "", "")).await;
    let (credentials, replica, scope) = (credentials(None), replica(server.port), pull("a"));
    for _ in 0..5 {
        assert!(credentials.authorization(&replica, &scope).await.is_none());
    }
    assert_eq!(server.asked().len(), 1);
    tokio::time::advance(PAUSE).await;
    assert!(credentials.authorization(&replica, &scope).await.is_none());
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn the_password_is_shown_by_nothing() {
    let config = CredentialsConfig {
        username: "user".to_owned(),
        password: Secret::new("hunter2"),
        realm: None,
        allow_push: false,
        tls: None,
    };
    let shown = format!(
        "{config:?} {:?}",
        UpstreamCredentials::new(String::new(), config.clone())
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("dXNlcjp"),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_does_not_wait_for_ever_for_its_turn_to_ask_for_a_token() {
    let (credentials, replica) = (credentials(None), replica(1));
    let server = TokenServer {
        realm: "http://127.0.0.1:1/token".parse().unwrap(),
        service: None,
    };
    // As many as may ask, of a server that says nothing.
    let all = u32::try_from(FETCHES).unwrap();
    let _stalled = credentials.fetches.acquire_many(all).await.unwrap();
    let scope = pull("a");
    let token = credentials.token(&replica, &server, &scope);
    let waited = timeout(Duration::from_hours(1), token).await;
    assert!(waited.unwrap().is_none());
    // Nor does the next one, for a while, wait at all.
    let token = credentials.token(&replica, &server, &scope);
    assert!(timeout(Duration::ZERO, token).await.unwrap().is_none());
}
