//! Which files are valid, and the errors for those that are not.

use std::io::Write as _;

use service::config::{Flag, Sources, load, load_with_origins};
use tempfile::NamedTempFile;

use super::*;

const UPSTREAM: &str = "upstreams: [{replicas: ['http://registry:5000']}]\n";

pub(super) fn resolve(yaml: &str, flags: Vec<Flag>) -> Result<(ProxyConfig, String), String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    let sources = Sources {
        files: vec![file.path().to_owned()],
        flags,
        ..Sources::default()
    };
    let path = file.path().display().to_string();
    let message = |error: ConfigError| error.to_string().replace(&path, "FILE");
    let loaded = load_with_origins::<ProxyFields>(sources).map_err(message)?;
    let printed = ProxyConfig::print(&loaded.fields);
    let config = ProxyConfig::resolve(loaded.fields, &loaded.origins).map_err(message)?;
    Ok((config, printed))
}

#[test]
fn a_registry_beside_an_upstream_is_refused_where_it_was_said() {
    let yaml = format!("{UPSTREAM}registry:\n  data: ./data\n");
    let error = resolve(&yaml, Vec::new()).unwrap_err();
    assert!(
        error.starts_with("FILE:2: registry: there are upstreams"),
        "{error}"
    );
    let flags = vec![Flag::new("--data", "registry.data", "./data")];
    let error = resolve(UPSTREAM, flags).unwrap_err();
    assert!(error.starts_with("--data: registry: "), "{error}");
}

#[test]
fn what_is_printed_of_a_proxy_with_an_upstream_loads_again() {
    let (_, printed) = resolve(UPSTREAM, Vec::new()).unwrap();
    let (again, printed_again) = resolve(&printed, Vec::new()).unwrap();
    assert_eq!(printed_again, printed);
    assert!(matches!(again.upstreams, UpstreamsConfig::Remote(_)));
    let (_, printed) = resolve("", Vec::new()).unwrap();
    let (again, _) = resolve(&printed, Vec::new()).unwrap();
    assert!(matches!(again.upstreams, UpstreamsConfig::Embedded(_)));
}

#[test]
fn public_listeners_serve_metrics_only_if_these_are_public() {
    let on_main = |yaml: &str| {
        resolve(yaml, Vec::new())
            .unwrap()
            .0
            .metrics
            .unwrap()
            .on_main
    };
    for (addresses, is_private) in [
        ("'127.0.0.1:5000'", true),
        ("'127.1.2.3:5000', '[::1]:5000'", true),
        ("'unix:/run/octoserve.sock'", true),
        ("'[::ffff:127.0.0.1]:5000'", true),
        ("'0.0.0.0:5000'", false),
        ("'[::]:5000'", false),
        ("'192.0.2.7:5000'", false),
        // All serve the metrics: the least private one decides.
        ("'127.0.0.1:5000', '192.0.2.7:5000'", false),
    ] {
        let listen = format!("listen: [{addresses}]\n");
        assert_eq!(on_main(&listen), is_private, "{addresses}");
        let own = format!("{listen}metrics: {{listen: '127.0.0.1:5001'}}\n");
        assert_eq!(on_main(&own), is_private, "{addresses}, with a listener");
        let public = format!("{listen}metrics: {{public: true}}\n");
        assert!(on_main(&public), "{addresses}, public");
        let off = format!("{listen}metrics: {{enabled: false, public: true}}\n");
        assert!(resolve(&off, Vec::new()).unwrap().0.metrics.is_none());
    }
}

#[test]
fn a_limit_too_short_to_be_counted_is_refused() {
    for key in ["header_timeout", "idle_timeout", "body_stall"] {
        let error = resolve(&format!("limits: {{{key}: 999ms}}"), Vec::new()).unwrap_err();
        assert!(
            error.starts_with(&format!("FILE:1: limits.{key}: ")),
            "{error}"
        );
    }
}

fn serves_on_main(yaml: &str) -> bool {
    resolve(yaml, Vec::new())
        .unwrap()
        .0
        .metrics
        .unwrap()
        .on_main
}

#[test]
fn a_public_listener_serves_metrics_only_with_a_password_or_if_configured() {
    let auth = "basic_auth: {username: a, password_hash: \
        '$2y$05$abcdefghijklmnopqrstuuIAEipimVgSTxGS2VyWH9AhzRz3iJI3.'}";
    for (listen, metrics, serves) in [
        ("127.0.0.1:1", "", true),
        ("'[::1]:1'", "", true),
        ("'[::ffff:127.0.0.1]:1'", "", true),
        ("unix:/x", "", true),
        ("0.0.0.0:1", "", false),
        ("'[::]:1'", "", false),
        ("['127.0.0.1:1', '10.0.0.1:1']", "", false),
        ("0.0.0.0:1", "public: true", true),
        ("0.0.0.0:1", auth, true),
    ] {
        let yaml = format!("listen: {listen}\nmetrics: {{{metrics}}}\n");
        assert_eq!(serves_on_main(&yaml), serves, "{yaml}");
    }
}

#[test]
fn the_status_page_is_on_a_main_listener_only_with_a_password_or_where_it_is_said() {
    let auth = "basic_auth: {username: a, password_hash: \
        '$2y$05$abcdefghijklmnopqrstuuIAEipimVgSTxGS2VyWH9AhzRz3iJI3.'}";
    let served = |yaml: &str, is_embedded| {
        let metrics = resolve(yaml, Vec::new()).unwrap().0.metrics.unwrap();
        (
            metrics.endpoint.page.is_some(),
            metrics.has_page_on_main(is_embedded),
        )
    };
    for (metrics, embedded, remote) in [
        ("", (true, false), (true, false)),
        (auth, (true, true), (true, false)),
        ("status_page: {listeners: all}", (true, true), (true, true)),
        (
            "status_page: {listeners: none}",
            (false, false),
            (false, false),
        ),
    ] {
        let yaml = format!("metrics: {{{metrics}}}\n");
        assert_eq!(served(&yaml, true), embedded, "{yaml}");
        assert_eq!(served(&yaml, false), remote, "{yaml}");
    }
    // The page without the metrics would show nothing.
    let nowhere = "listen: 0.0.0.0:1\nmetrics:\n  status_page: {listeners: all}\n";
    let error = resolve(nowhere, Vec::new()).unwrap_err();
    let key = "FILE:3: metrics.status_page.listeners: all: ";
    assert!(error.starts_with(key), "{error}");
    assert!(!served("listen: 0.0.0.0:1\nmetrics: {public: true}\n", true).1);
}

/// `/metrics` forced onto a debug port with a profiler; half-set basic auth meaning none.
#[test]
fn incomplete_basic_auth_is_an_error_with_file_line_and_key() {
    for (half, message) in [
        (
            "{username: a}",
            "the key password_hash or password_file is missing",
        ),
        ("{password_hash: '$2y$10$x'}", "the key username is missing"),
        ("{password_file: /x}", "the key username is missing"),
        ("{}", "the key username is missing"),
    ] {
        let yaml = format!("listen: 0.0.0.0:1\nmetrics:\n  basic_auth: {half}\n");
        let error = resolve(&yaml, Vec::new()).unwrap_err();
        assert_eq!(error, format!("FILE:3: metrics.basic_auth: {message}"));
    }
}

#[test]
fn a_certificate_must_be_there() {
    let tls = "{address: '127.0.0.1:1', tls: {certificate: /no/crt, key: /no/key}}";
    let error = resolve(&format!("metrics:\n  listen: {tls}\n"), Vec::new()).unwrap_err();
    assert!(
        error.starts_with("FILE:2: metrics.listen.tls.certificate: cannot read"),
        "{error}"
    );
    let error = resolve(&format!("listen: [{tls}]\n"), Vec::new()).unwrap_err();
    assert!(
        error.starts_with("FILE:1: listen[0].tls.certificate: cannot read"),
        "{error}"
    );
    let error = resolve(
        "metrics: {listen: {address: '127.0.0.1:1', tls: {key: x}}}",
        Vec::new(),
    );
    let error = error.unwrap_err();
    assert!(error.contains("the key certificate is missing"), "{error}");
}

#[test]
fn the_metrics_listen_flag_keeps_the_configured_certificate() {
    let tls = "tls: {certificate: /no/crt, key: /no/key}";
    for table in [
        format!("{{address: '127.0.0.1:1', {tls}}}"),
        format!("{{{tls}}}"),
    ] {
        for address in ["127.0.0.1:2", "[::1]:2", "unix:/m"] {
            let flag = Flag::new("--metrics-listen", "metrics.listen", address);
            let yaml = format!("metrics:\n  listen: {table}\n");
            let error = resolve(&yaml, vec![flag]).unwrap_err();
            let kept = "FILE:2: metrics.listen.tls.certificate: cannot read";
            assert!(error.starts_with(kept), "{address}, {table}: {error}");
        }
    }
    let nowhere = Flag::new("--metrics-listen", "metrics.listen", "nowhere");
    let yaml = format!("metrics: {{listen: {{address: '127.0.0.1:1', {tls}}}}}\n");
    let error = resolve(&yaml, vec![nowhere]).unwrap_err();
    let message = "--metrics-listen: metrics.listen.address: `nowhere` is not";
    assert!(error.starts_with(message), "{error}");
}

fn listen(value: &str) -> Result<Vec<String>, String> {
    let sources = Sources {
        env: vec![("OCTOSERVE_LISTEN".to_owned(), value.to_owned())],
        ..Sources::default()
    };
    let fields: ProxyFields = load(sources).map_err(|error| error.to_string())?;
    let addresses = fields.listen.into_iter();
    Ok(addresses.map(|listen| listen.address.to_string()).collect())
}

#[test]
fn an_address_is_written_alone_in_a_list_or_in_a_table() {
    for (text, addresses) in [
        ("1.2.3.4:5", &["1.2.3.4:5"][..]),
        ("[::1]:5", &["[::1]:5"]),
        ("['1.2.3.4:5', 'unix:/x']", &["1.2.3.4:5", "unix:/x"]),
        (
            "[{address: '1.2.3.4:5'}, '[::1]:6']",
            &["1.2.3.4:5", "[::1]:6"],
        ),
    ] {
        assert_eq!(listen(text).unwrap(), addresses, "{text}");
    }
}

#[test]
fn an_invalid_address_is_reported_with_the_variable() {
    for (text, place) in [
        ("nowhere", "OCTOSERVE_LISTEN: listen: `nowhere`"),
        (
            "[{address: nowhere}]",
            "OCTOSERVE_LISTEN: listen[0].address: `nowhere`",
        ),
        ("[nowhere]", "OCTOSERVE_LISTEN: listen[0]: `nowhere`"),
        (
            "[{adress: x}]",
            "OCTOSERVE_LISTEN: listen[0].adress: unknown key",
        ),
    ] {
        let error = listen(text).unwrap_err();
        assert!(error.starts_with(place), "{text}: {error}");
    }
}

/// What resolving a proxy in front of `upstream`, the keys of one, says.
fn upstream_error(listen: &str, upstream: &str) -> Option<String> {
    let yaml = format!("listen: [{listen}]\nupstreams:\n  - {{{upstream}}}\n");
    resolve(&yaml, Vec::new()).err()
}

#[test]
fn a_host_and_a_path_are_checked_where_they_are_written() {
    let local = "'127.0.0.1:1'";
    for upstream in [
        "replicas: ['http://registry/a/b'], host: upstream",
        "replicas: ['http://registry'], host: keep",
        "replicas: ['unix:/r'], host: 'registry.example:5000'",
    ] {
        assert_eq!(upstream_error(local, upstream), None, "{upstream}");
    }
    for (upstream, message) in [
        (
            "replicas: ['http://registry/v2/']",
            "replicas[0]: `http://registry/v2/`: leave out /v2",
        ),
        (
            "replicas: ['http://registry/a?b']",
            "replicas[0]: `http://registry/a?b`: the path must",
        ),
        (
            "replicas: ['http://a'], host: 'a/b'",
            "host: `a/b` is no host",
        ),
        (
            "replicas: ['http://a/p', 'http://b/q']",
            "replicas[1]: must have the same path as replicas[0]",
        ),
        (
            "replicas: ['http://a'], tls: {}",
            "tls: there is no https URL",
        ),
        (
            "replicas: ['https://a'], tls: {ca: /no/ca}",
            "tls.ca: cannot read a certificate from /no/ca: there is no such file",
        ),
        (
            "replicas: ['https://a'], tls: {ca: /no/ca, name: x}",
            "tls.name: unknown key",
        ),
        (
            "replicas: ['http://a'], metrics: [{source: a, url: 'https://a'}], tls: {ca: /no/ca}",
            "tls.ca: cannot read",
        ),
    ] {
        let error = upstream_error(local, upstream).unwrap_or_default();
        let start = format!("FILE:3: upstreams[0].{message}");
        assert!(error.starts_with(&start), "{upstream}: {error}");
    }
}

/// Any variable that is set wherever tests run.
const VARIABLE: &str = "CARGO_MANIFEST_DIR";

#[test]
fn credentials_are_whole_and_go_to_nobody_else() {
    let password = format!("password_env: {VARIABLE}");
    let wrong = |replica: &str, credentials: &str| {
        let upstream = format!("replicas: ['{replica}'], credentials: {{{credentials}}}");
        upstream_error("'127.0.0.1:9'", &upstream).unwrap_or_default()
    };
    let local = "http://localhost:1";
    for replica in [local, "http://127.0.0.1:1", "unix:/r"] {
        assert_eq!(wrong(replica, &format!("username: a, {password}")), "");
    }
    for (replica, credentials, message) in [
        (local, &*password, ": the key username is missing"),
        (
            local,
            "username: a",
            ": the key password_file or password_env is missing",
        ),
        (
            local,
            &format!("username: a, password_file: /x, {password}"),
            ": the keys password_file and password_env exclude each other",
        ),
        (local, "username: a, password: b", ".password: unknown key"),
        (
            local,
            &format!("username: 'a:b', {password}"),
            ".username: must be a name without a colon",
        ),
        (
            local,
            "username: a, password_file: /no/file",
            ".password_file: cannot read /no/file",
        ),
        (
            local,
            "username: a, password_file: /dev/null",
            ".password_file: cannot read /dev/null: it is not a regular file",
        ),
        (
            local,
            "username: a, password_env: NO_SUCH",
            ".password_env: the variable NO_SUCH is not set",
        ),
        (
            local,
            "username: a, password_env: OCTOSERVE_PASSWORD",
            ".password_env: variables that begin with OCTOSERVE_",
        ),
        (
            local,
            &format!("username: a, {password}, realm: 'http://auth.example/token'"),
            ".realm: the password would be sent there without TLS",
        ),
        (
            local,
            &format!("username: a, {password}, realm: auth"),
            ".realm: `auth` is not a URL",
        ),
        (
            local,
            &format!("username: a, {password}, anonymous: push"),
            ".anonymous: ",
        ),
        (
            "http://registry",
            &format!("username: a, {password}"),
            ": would be sent without TLS",
        ),
    ] {
        let error = wrong(replica, credentials);
        let start = format!("FILE:3: upstreams[0].credentials{message}");
        assert!(error.starts_with(&start), "{credentials}: {error}");
    }
}

#[test]
fn credentials_on_a_listener_that_others_reach_need_the_operators_word() {
    let with = |listen: &str, more: &str| {
        let credentials = format!("{{username: a, password_env: {VARIABLE}{more}}}");
        let upstream = format!("replicas: ['http://localhost:1'], credentials: {credentials}");
        upstream_error(listen, &upstream).unwrap_or_default()
    };
    for private in ["'127.0.0.1:2'", "'unix:/x'", "'[::1]:2', 'unix:/x'"] {
        assert_eq!(with(private, ", allow_push: true"), "", "{private}");
    }
    for public in ["'0.0.0.0:2'", "'127.0.0.1:2', '192.0.2.1:2'"] {
        let error = with(public, "");
        let message = "FILE:3: upstreams[0].credentials: others reach ";
        assert!(error.starts_with(message), "{error}");
        assert!(error.ends_with("set anonymous: pull"), "{error}");
        assert!(!with(public, ", anonymous: none").is_empty());
        assert_eq!(with(public, ", anonymous: pull"), "");
        let error = with(public, ", anonymous: pull, allow_push: true");
        let message = "FILE:3: upstreams[0].credentials.allow_push: others reach ";
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn pushes_with_our_credentials_need_clients_with_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("crt"), made.cert.pem()).unwrap();
    std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    let files = format!("certificate: '{0}', key: '{1}'", path("crt"), path("key"));
    let ca = format!("{files}, client_ca: '{}'", path("crt"));
    let credentials =
        format!("{{username: a, password_env: {VARIABLE}, anonymous: pull, allow_push: true}}");
    let upstream = format!("replicas: ['http://localhost:1'], credentials: {credentials}");
    for (tls, is_allowed) in [
        (&files, false),
        (&ca, true),
        (&format!("{ca}, client_certificates: required"), true),
        (&format!("{ca}, client_certificates: optional"), false),
    ] {
        let secured = format!("{{address: '0.0.0.0:2', tls: {{{tls}}}}}");
        let error = upstream_error(&secured, &upstream);
        assert_eq!(error.is_none(), is_allowed, "{tls}: {error:?}");
        // One that requires none opens the registry beside those that do.
        let two = format!("{secured}, '0.0.0.0:3'");
        assert!(upstream_error(&two, &upstream).is_some(), "{tls}");
    }
}

/// What a process that runs with one file makes of another one: what it applies, and which keys of
/// listeners stay.
fn again(running: &str, yaml: &str) -> Result<(ProxyConfig, Vec<String>), String> {
    let [running, next] = [running, yaml].map(|yaml| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(yaml.as_bytes()).unwrap();
        let sources = Sources {
            files: vec![file.path().to_owned()],
            ..Sources::default()
        };
        (sources, file)
    });
    let running = load::<ProxyFields>(running.0).unwrap();
    let loaded = ProxyConfig::load_again(next.0, &running);
    let loaded = loaded.map_err(|error| error.to_string())?;
    Ok((loaded.config, loaded.kept.without(&[])))
}

#[test]
fn a_reload_is_checked_against_the_listeners_that_run() {
    let open = "listen: ['0.0.0.0:2']\n";
    let local = "listen: ['127.0.0.1:2']\n";
    let credentials = format!("credentials: {{username: a, password_env: {VARIABLE}}}");
    let opened = format!("upstreams: [{{replicas: ['http://localhost:1'], {credentials}}}]\n");
    let error = again(open, &format!("{local}{opened}")).unwrap_err();
    for part in ["credentials: ", "others reach 0.0.0.0:2", "until a restart"] {
        assert!(error.contains(part), "{error}");
    }
    // The other way round it is valid now, and would not be after a restart.
    let error = again(local, &format!("{open}{opened}")).unwrap_err();
    assert!(!error.contains("until a restart"), "{error}");
    assert!(again(local, &format!("{local}{opened}")).is_ok());
    let (config, kept) = again(open, UPSTREAM).unwrap();
    assert_eq!(kept, ["listen[0].address"]);
    assert_eq!(config.listen[0].address.to_string(), "0.0.0.0:2");
    assert!(!config.metrics.unwrap().on_main, "others reach it");
    let (config, kept) = again(
        open,
        &format!("{UPSTREAM}{open}metrics: {{listen: '127.0.0.1:3'}}"),
    )
    .unwrap();
    assert_eq!(kept, ["metrics.listen"]);
    assert_eq!(config.metrics.unwrap().endpoint.listen, None);
}

#[test]
fn certificates_are_replaced_at_the_listeners_that_have_some() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let tls = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        std::fs::write(
            path(name),
            made.cert.pem() + &made.signing_key.serialize_pem(),
        )
        .unwrap();
        format!("tls: {{certificate: '{0}', key: '{0}'}}", path(name))
    };
    let listen = |entries: &[&str]| format!("{UPSTREAM}listen: [{}]\n", entries.join(", "));
    let (first, second) = (tls("first"), tls("second"));
    let entry = |port: u16, tls: &str| format!("{{address: '127.0.0.1:{port}', {tls}}}");
    let (plain, running) = ("'127.0.0.1:2'".to_owned(), entry(3, &first));
    let running = listen(&[&plain, &running]);
    for (entries, is_second, stay) in [
        (vec![plain.clone(), entry(3, &second)], true, &[][..]),
        // In another place, and beside one that is new.
        (
            vec![entry(3, &second), plain.clone(), entry(4, &second)],
            true,
            &["listen"],
        ),
        (
            vec![plain.clone(), entry(4, &second)],
            false,
            &[
                "listen[1].address",
                "listen[1].tls.certificate",
                "listen[1].tls.key",
            ],
        ),
        (
            vec![entry(2, &second), entry(3, &first)],
            false,
            &["listen[0].tls"],
        ),
        (
            vec![plain.clone(), "'127.0.0.1:3'".to_owned()],
            false,
            &["listen[1].tls"],
        ),
    ] {
        let entries: Vec<_> = entries.iter().map(String::as_str).collect();
        let (config, kept) = again(&running, &listen(&entries)).unwrap();
        assert_eq!(kept, stay, "{entries:?}");
        let addresses: Vec<_> = config
            .listen
            .iter()
            .map(|one| one.address.to_string())
            .collect();
        assert_eq!(addresses, ["127.0.0.1:2", "127.0.0.1:3"]);
        assert!(config.listen[0].tls.is_none());
        let files = config.listen[1].tls.as_ref().unwrap().expiries();
        let name = if is_second { "second" } else { "first" };
        assert_eq!(
            files[0].file.display().to_string(),
            path(name),
            "{entries:?}"
        );
    }
}

#[test]
fn a_name_of_an_upstream_has_no_slash() {
    let error = upstream("name: a/b, replicas: ['http://a']").unwrap_err();
    assert_eq!(
        error,
        "FILE:2: upstreams[0].name: must be a name without a slash"
    );
}

#[test]
fn a_password_is_not_printed() {
    let yaml = format!(
        "upstreams: [{{replicas: ['unix:/r'], credentials: {{username: a, password_env: {VARIABLE}}}}}]\n"
    );
    let (config, printed) = resolve(&yaml, Vec::new()).unwrap();
    let (_, again) = resolve(&printed, Vec::new()).unwrap();
    assert_eq!(printed, again);
    let password = std::env::var(VARIABLE).unwrap();
    assert!(!printed.contains(&password), "{printed}");
    let shown = format!("{config:?}");
    assert!(!shown.contains(&password), "{shown}");
}

fn upstream(keys: &str) -> Result<(ProxyConfig, String), String> {
    resolve(&format!("upstreams:\n- {{{keys}}}\n"), Vec::new())
}

#[test]
fn what_is_wrong_with_replicas_is_refused_with_its_key() {
    let two = "replicas: ['http://a', 'http://b']";
    for (keys, message) in [
        ("replicas: []", "replicas: at least one"),
        (
            "replicas: [{drain: true}]",
            "replicas[0]: the key url is missing",
        ),
        (
            "replicas: [{url: 'http://a', drian: true}]",
            "replicas[0].drian: unknown key",
        ),
        ("replicas: [1]", "replicas[0]: "),
        (
            "replicas: ['http://a', 'http://a:80/']",
            "replicas[1]: is the same as replicas[0]",
        ),
        ("replicas: ['http://a', nowhere]", "replicas[1]: "),
        (
            "replicas: [{url: 'http://a', drain: true}]",
            "replicas: all replicas drain",
        ),
        (
            "replicas: ['http://a', 'http://127.0.0.1:5000']",
            "replicas[1]: is an address of this process itself",
        ),
        (&format!("{two}, balance: random"), "balance: "),
        (
            &format!("{two}, max_connections: 0"),
            "max_connections: must be from 1",
        ),
        (
            &format!("{two}, queue: {{length: 100001}}"),
            "queue.length: must be from 0",
        ),
        (
            &format!("{two}, queue: {{timeout: 0s}}"),
            "queue.timeout: must be from 1s",
        ),
        (
            &format!("{two}, health: {{path: v2}}"),
            "health.path: must be a path",
        ),
        (
            &format!("{two}, health: {{path: '/a b'}}"),
            "health.path: must be a path",
        ),
        (
            &format!("{two}, health: {{path: ''}}"),
            "health.path: must be from 1",
        ),
        (
            &format!("{two}, health: {{interval: 1ms}}"),
            "health.interval: must be from 1s",
        ),
        (
            &format!("{two}, health: {{timeout: 1h}}"),
            "health.timeout: must be from 1s",
        ),
        (
            &format!("{two}, health: {{rise: 0}}"),
            "health.rise: must be from 1",
        ),
        (
            &format!("{two}, health: {{fall: 101}}"),
            "health.fall: must be from 1",
        ),
        (
            &format!("{two}, session_key_file: /no/key"),
            "session_key_file: cannot read /no/key",
        ),
    ] {
        let error = upstream(keys).unwrap_err();
        let start = format!("FILE:2: upstreams[0].{message}");
        assert!(error.starts_with(&start), "{keys}: {error}");
    }
    let many: Vec<_> = (0..65).map(|at| format!("'http://a{at}'")).collect();
    let error = upstream(&format!("replicas: [{}]", many.join(", "))).unwrap_err();
    assert!(error.contains("at most 64 entries"), "{error}");
}

#[test]
fn a_session_key_is_long_enough_and_is_never_shown() {
    let mut file = NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    let keys = format!("replicas: ['http://a', 'http://b'], session_key_file: {path}");
    file.write_all(&[b"  ", &[b'k'; 31][..], b"\n"].concat())
        .unwrap();
    let error = upstream(&keys).unwrap_err();
    let message = "must be at least 32 bytes long";
    assert!(error.contains(message) && !error.contains("kkk"), "{error}");
    file.write_all(&[b'k'; 32]).unwrap();
    let (config, printed) = upstream(&keys).unwrap();
    assert!(
        printed.contains(&path) && !printed.contains("kkk"),
        "{printed}"
    );
    assert!(!format!("{config:?}").contains("kkk"));
}

#[test]
fn a_replica_is_a_url_or_a_table_and_is_printed_as_it_loads_again() {
    let (config, printed) =
        upstream("replicas: ['http://a', {url: 'http://b', drain: true}, {url: 'http://c'}]")
            .unwrap();
    let UpstreamsConfig::Remote(upstreams) = config.upstreams else {
        panic!("no remote upstream");
    };
    let all = upstreams[0]
        .replicas
        .iter()
        .map(|replica| (replica.name.as_str(), replica.is_draining));
    let expected = [("http://a", false), ("http://b", true), ("http://c", false)];
    assert!(all.eq(expected));
    let (_, again) = resolve(&printed, Vec::new()).unwrap();
    assert_eq!(again, printed);
}
