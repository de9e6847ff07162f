//! Whether clients get tokens for an upstream, and the proxy's own credentials are accepted.

use service::doctor::{Finding, REQUEST};
use service::log::causes;
use service::net::{ClientError, GetRequest, HttpUrl, ServerAddress};
use service::tls::{TlsClient, TlsClientFields};
use tokio::time::timeout;

use crate::upstream::{Challenge, ChallengeError, Replica, UpstreamCredentials};

const REALM: &str = "token realm";

/// Whether the place where clients get their tokens is there. `tls` is for servers that are not the
/// upstream; `is_remote`: clients on other machines reach the proxy.
pub(super) async fn realm(
    replica: &Replica,
    challenge: Result<Challenge, ChallengeError>,
    tls: Option<TlsClient>,
    is_remote: bool,
) -> Vec<Finding> {
    let server = match challenge {
        Ok(Challenge::Bearer(server)) => server,
        Ok(Challenge::Basic | Challenge::Open) => {
            let message = "none: it asks for a password with each request";
            return vec![Finding::ok(REALM, message)];
        }
        Err(error) => {
            let mend = "mend WWW-Authenticate there, or what is between";
            return vec![Finding::fail(REALM, error.to_string(), mend)];
        }
    };
    let realm = server.realm;
    let mut findings = vec![reached(replica, &realm, tls).await];
    findings.extend(hints(&realm, is_remote));
    findings
}

async fn reached(replica: &Replica, realm: &HttpUrl, tls: Option<TlsClient>) -> Finding {
    let shown = shown(realm);
    let tls = if replica.is_at(realm) {
        replica.tls().cloned()
    } else {
        match tls.map_or_else(of_system, Ok) {
            Ok(tls) => Some(tls),
            Err(error) => {
                let message = format!("{shown} cannot be tried: {error}");
                return Finding::warn(REALM, message, "install the package ca-certificates");
            }
        }
    };
    let request = GetRequest::from(realm.clone()).with_tls(tls);
    let sent = timeout(REQUEST, request.send()).await;
    match sent {
        Ok(Ok(response)) if response.status().is_server_error() => {
            let status = response.status().as_u16();
            let message = format!("{shown} responds {status}");
            Finding::fail(REALM, message, "see the log of the server of tokens")
        }
        Ok(Ok(response)) => {
            let status = response.status().as_u16();
            Finding::ok(
                REALM,
                format!("{shown} responds {status} without a password"),
            )
        }
        Ok(Err(ClientError::Tls(failure))) => {
            let message = format!("{shown}: {failure}");
            Finding::fail_as_said(REALM, &message)
        }
        Ok(Err(error)) => {
            let message = format!("{shown}: {}", causes(&error));
            let mend = "start it, or mend the realm that the upstream is configured with";
            Finding::fail(REALM, message, mend)
        }
        Err(_) => {
            let message = format!("{shown} did not respond within {} s", REQUEST.as_secs());
            Finding::fail(REALM, message, "see why it is slow or hangs")
        }
    }
}

/// What works from here, and may not for clients.
fn hints(realm: &HttpUrl, is_remote: bool) -> Vec<Finding> {
    let shown = shown(realm);
    let mut hints = Vec::new();
    let is_local = match realm.address() {
        ServerAddress::Unix(_) => true,
        ServerAddress::Tcp { .. } => realm.is_private() && !is_https(realm),
    };
    if is_local && is_remote {
        let message = format!("clients on other machines cannot reach {shown}");
        let mend = "give the upstream a realm that they reach";
        hints.push(Finding::warn(REALM, message, mend));
    }
    if !realm.is_private() {
        let message = format!("clients send their passwords to {shown} without TLS");
        hints.push(Finding::warn(
            REALM,
            message,
            "give the upstream an https realm",
        ));
    }
    hints
}

fn is_https(url: &HttpUrl) -> bool {
    url.scheme() == service::net::Scheme::Https
}

/// Without a query, which is not ours to show.
fn shown(realm: &HttpUrl) -> String {
    let path = realm.path().unwrap_or_default();
    let path = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    realm.clone().with_path(&path).to_string()
}

/// What clients trust by default.
fn of_system() -> Result<TlsClient, String> {
    let loaded = TlsClientFields::default().load();
    loaded
        .map(|(_, others)| others)
        .map_err(|error| error.to_string())
}

/// Whether the proxy's own credentials are accepted.
pub(super) async fn credentials(replica: &Replica, own: &UpstreamCredentials) -> Finding {
    let check = "credentials";
    match timeout(REQUEST * 2, own.try_out(replica)).await {
        Ok(Ok(Challenge::Open)) => {
            let mend = "leave credentials out, if it needs none at all";
            Finding::warn(check, "it asks for none", mend)
        }
        Ok(Ok(Challenge::Basic)) => Finding::ok(check, "accepted (Basic)"),
        Ok(Ok(Challenge::Bearer(_))) => Finding::ok(check, "accepted, with a token"),
        Ok(Err(error)) => {
            let text = causes(&error);
            let mend =
                "mend upstreams[].credentials: username, password_file or password_env, realm";
            match text.split_once("; ") {
                Some(_) => Finding::fail_as_said(check, &text),
                None => Finding::fail(check, text, mend),
            }
        }
        Err(_) => Finding::fail(check, "no answer in time", "see why it is slow or hangs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_that_clients_cannot_reach_or_should_not_use_is_a_warning() {
        let of = |realm: &str, is_remote| -> Vec<_> {
            let hints = hints(&realm.parse().unwrap(), is_remote).into_iter();
            hints.map(|hint| hint.message).collect()
        };
        assert_eq!(of("https://auth.example/token", true), [""; 0]);
        assert_eq!(of("http://127.0.0.1:1/token", false), [""; 0]);
        let local = "clients on other machines cannot reach http://127.0.0.1:1/token";
        assert_eq!(of("http://127.0.0.1:1/token?x=secret", true), [local]);
        let plain = "clients send their passwords to http://auth.example:80 without TLS";
        assert_eq!(of("http://auth.example/", true), [plain]);
    }
}
