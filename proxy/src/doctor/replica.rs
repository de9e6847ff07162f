//! Whether a replica of an upstream is there, speaks the protocol, and lets us in.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use http::header::{CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use service::doctor::{Examination, Finding, REQUEST, certificate, clock};
use service::log::causes;
use service::net::{ClientError, HttpUrl, Response, ServerAddress};
use service::quantity;
use tokio::time::timeout;

use super::tokens;
use crate::config::RemoteConfig;
use crate::upstream::{Challenge, HealthRules, Replica, ReplicaSettings, UpstreamCredentials};

/// What a registry says that it speaks.
const API_VERSION: &str = "docker-distribution-api-version";

/// What is tried of one replica. `is_remote`: clients on other machines reach the proxy.
pub(super) fn examination(
    upstream: &RemoteConfig,
    settings: &ReplicaSettings,
    is_remote: bool,
) -> Examination {
    let name = upstream.name.clone();
    let subject = format!("upstream {name}, {}", settings.name);
    let replica = Replica::new(name.clone(), settings.clone(), &upstream.rules);
    let health = upstream.rules.health.clone();
    let credentials = upstream.credentials.clone();
    Examination::new(subject, async move {
        let mut findings = Vec::new();
        let Some(response) = answers(&replica, &mut findings).await else {
            return findings;
        };
        findings.extend(certificates(&replica, &response));
        findings.push(clock(response.headers()));
        let challenge = challenge(&response);
        // Not held open: what follows makes connections of its own.
        drop(response);
        if let Some(challenge) = challenge {
            let tls = credentials.as_ref().and_then(|own| own.tls.clone());
            findings.extend(tokens::realm(&replica, challenge, tls, is_remote).await);
        }
        findings.extend(probe(&replica, &health).await);
        if let Some(config) = credentials {
            let own = UpstreamCredentials::new(name, config);
            findings.push(tokens::credentials(&replica, &own).await);
        }
        findings
    })
}

/// The response to a request for `/v2/`, if it is one of a registry.
async fn answers(replica: &Replica, findings: &mut Vec<Finding>) -> Option<Response> {
    if let Err(finding) = resolved(replica.server()).await {
        findings.push(finding);
        return None;
    }
    let started = Instant::now();
    let response = match timeout(REQUEST, replica.base_request().send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            findings.push(unreached(&error));
            return None;
        }
        Err(_) => {
            let message = format!("no response to /v2/ within {} s", REQUEST.as_secs());
            findings.push(Finding::fail(
                "answers",
                message,
                "see why it is slow or hangs",
            ));
            return None;
        }
    };
    let took = quantity::time(started.elapsed().as_secs_f64());
    let status = response.status().as_u16();
    findings.push(Finding::ok(
        "answers",
        format!("{status} to /v2/ in {took}"),
    ));
    findings.push(protocol(response.status(), response.headers()));
    Some(response)
}

/// Whether the name of a server is known.
async fn resolved(server: &ServerAddress) -> Result<(), Finding> {
    let ServerAddress::Tcp { host, port } = server else {
        return Ok(());
    };
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let addresses = timeout(REQUEST, tokio::net::lookup_host((host.as_str(), *port))).await;
    let message = match addresses {
        Ok(Ok(mut addresses)) => match addresses.next() {
            Some(_) => return Ok(()),
            None => format!("{host} has no address"),
        },
        Ok(Err(error)) => format!("{host} cannot be resolved: {error}"),
        Err(_) => format!("{host} was not resolved within {} s", REQUEST.as_secs()),
    };
    let mend = "mend the name in upstreams[].replicas, or this machine's DNS";
    Err(Finding::fail("name", message, mend))
}

fn unreached(error: &ClientError) -> Finding {
    match error {
        ClientError::Tls(failure) => Finding::fail_as_said("certificate", &failure.to_string()),
        ClientError::Connect(source) => {
            let mend = match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    "start the registry, or mend the address in upstreams[].replicas"
                }
                io::ErrorKind::PermissionDenied => "run this as the program's user",
                _ => "see whether the network or a firewall is in the way",
            };
            Finding::fail("answers", causes(error), mend)
        }
        error => {
            let mend = "it may speak TLS (https://), or be another kind of server: mend the URL";
            Finding::fail("answers", causes(error), mend)
        }
    }
}

/// Whether the response to a request for `/v2/` is one of a registry (end-1 of the specification).
fn protocol(status: StatusCode, headers: &HeaderMap) -> Finding {
    let check = "protocol";
    let version = headers
        .get(API_VERSION)
        .and_then(|value| value.to_str().ok());
    let says = version.map_or("is a registry's response".to_owned(), |version| {
        format!("it says {version}")
    });
    match status {
        StatusCode::OK if version.is_none() && is_html(headers) => Finding::warn(
            check,
            "200 with a web page: it may be no registry",
            "mend the URL: it is what precedes /v2/",
        ),
        StatusCode::OK => Finding::ok(check, format!("{says}, and asks for no credentials")),
        StatusCode::UNAUTHORIZED => Finding::ok(check, format!("{says}, and asks for credentials")),
        status if status.is_redirection() => {
            let message = format!("{} redirects {}", status.as_u16(), target(headers));
            let mend = "give upstreams[].replicas the URL at the end of the redirect";
            Finding::fail(check, message, mend)
        }
        StatusCode::NOT_FOUND => Finding::fail(
            check,
            "404: there is no registry below this URL",
            "mend the URL: it is what precedes /v2/, and may have a path",
        ),
        StatusCode::FORBIDDEN => Finding::fail(
            check,
            "403: it refuses this machine, or the host that it is asked for",
            "allow this machine there, or set upstreams[].host to a name that it knows",
        ),
        StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST => Finding::fail(
            check,
            format!(
                "{}: it may speak TLS, or not know the host",
                status.as_u16()
            ),
            "use https://, or set upstreams[].host to a name that it knows",
        ),
        status if status.is_server_error() => Finding::fail(
            check,
            format!("{}: it is there, and does not work", status.as_u16()),
            "see its log",
        ),
        status => Finding::fail(
            check,
            format!("{} is no response of a registry to /v2/", status.as_u16()),
            "mend the URL: it is what precedes /v2/",
        ),
    }
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}

/// Where a redirect leads, without its path and query: they may hold a signature.
fn target(headers: &HeaderMap) -> String {
    let location = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    let url = location.and_then(|to| to.parse::<HttpUrl>().ok());
    match url {
        Some(url) => format!("to {}", url.with_path("")),
        None => "to another path".to_owned(),
    }
}

/// When the server's certificate ends, and our own.
fn certificates(replica: &Replica, response: &Response) -> Vec<Finding> {
    let theirs = response.certificate_validity();
    let theirs = theirs.map(|valid| certificate("its certificate", valid, "renew it there"));
    let own = replica.tls().filter(|_| theirs.is_some());
    let own = own.and_then(service::tls::TlsClient::own_validity);
    let own = own.map(|valid| certificate("our client certificate", valid, "renew it"));
    theirs.into_iter().chain(own).collect()
}

/// How it wants to be asked; `None` where it wants no credentials.
fn challenge(response: &Response) -> Option<Result<Challenge, crate::upstream::ChallengeError>> {
    if response.status() != StatusCode::UNAUTHORIZED {
        return None;
    }
    let values = response.headers().get_all(WWW_AUTHENTICATE).iter();
    Some(Challenge::of(
        values.filter_map(|value| value.to_str().ok()),
    ))
}

/// The probe, where another path than `/v2/` is probed.
async fn probe(replica: &Replica, health: &HealthRules) -> Option<Finding> {
    if health.path == HealthRules::default().path {
        return None;
    }
    let check = "health";
    Some(match replica.probe(health).await {
        Ok(()) => Finding::ok(check, format!("its probe of {} succeeds", health.path)),
        Err(error) => {
            let message = format!("its probe of {} fails: {}", health.path, causes(&error));
            let mend = "mend upstreams[].health.path: an unhealthy replica gets no requests";
            Finding::fail(check, message, mend)
        }
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;
    use service::doctor::CheckResult::{Fail, Ok as Fine, Warn};

    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn a_registry_is_told_from_other_servers_by_its_response() {
        let html = ("content-type", "text/html; charset=utf-8");
        for (status, all, result, text) in [
            (200, &[][..], Fine, "no credentials"),
            (
                200,
                &[(API_VERSION, "registry/2.0")],
                Fine,
                "says registry/2.0",
            ),
            (
                200,
                &[(API_VERSION, "registry/2.0"), html],
                Fine,
                "registry/2.0",
            ),
            (200, &[html], Warn, "web page"),
            (401, &[], Fine, "asks for credentials"),
            (
                301,
                &[("location", "https://r.example/v2/?sig=secret")],
                Fail,
                "to https://r.example:443",
            ),
            (307, &[("location", "/v2")], Fail, "to another path"),
            (404, &[], Fail, "no registry"),
            (403, &[], Fail, "refuses"),
            (400, &[], Fail, "may speak TLS"),
            (503, &[], Fail, "does not work"),
            (418, &[], Fail, "no response of a registry"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = protocol(status, &headers(all));
            assert_eq!(found.result, result, "{found:?}");
            assert!(found.message.contains(text), "{found:?}");
            assert!(!found.message.contains("secret"), "{found:?}");
        }
    }
}
