//! Layers, and what a person reads when something is wrong.

use std::collections::BTreeMap;
use std::io::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::*;

mod several_files;

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    listen: Vec<Listen>,
    data: String,
    metrics: Metrics,
    limits: Limits,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Listen {
    address: std::net::SocketAddr,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Metrics {
    public: bool,
    listen: Option<String>,
    labels: BTreeMap<String, String>,
    basic_auth: Option<BasicAuth>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BasicAuth {
    username: String,
    password: Secret,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    header_timeout: Duration,
    max_bytes: ByteSize,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            listen: vec![Listen {
                address: ([127, 0, 0, 1], 5000).into(),
            }],
            data: "./data".to_owned(),
            metrics: Metrics::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(15),
            max_bytes: ByteSize::mib(64),
        }
    }
}

/// Loads with a file of that text, and gives errors with the file's path as `FILE`.
fn load_from(yaml: &str, env: &[(&str, &str)], flags: Vec<Flag>) -> Result<Fields, String> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    let path = file.path().display().to_string();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let sources = Sources {
        files: vec![file.path().to_owned()],
        env,
        flags,
    };
    load(sources).map_err(|error| error.to_string().replace(&path, "FILE"))
}

fn error_of(yaml: &str) -> String {
    load_from(yaml, &[], Vec::new()).unwrap_err()
}

fn error_of_env(name: &str, value: &str) -> String {
    load_from("", &[(name, value)], Vec::new()).unwrap_err()
}

#[test]
fn without_sources_the_defaults_hold() {
    assert_eq!(
        load::<Fields>(Sources::default()).unwrap(),
        Fields::default()
    );
    assert_eq!(
        load_from("# nothing\n", &[], Vec::new()).unwrap(),
        Fields::default()
    );
    assert_eq!(
        load_from("metrics:\n", &[], Vec::new()).unwrap(),
        Fields::default()
    );
}

#[test]
fn flags_go_before_variables_before_the_file_before_defaults() {
    let yaml = "data: file\nlimits: {header_timeout: 1s}\nmetrics: {public: true, listen: file}\n";
    let env = [
        ("OCTOSERVE_DATA", "env"),
        ("OCTOSERVE_METRICS_LISTEN", "env"),
        ("PATH", "/bin"),
    ];
    let fields = load_from(yaml, &env, vec![Flag::new("--data", "data", "flag")]).unwrap();
    assert_eq!(fields.data, "flag");
    assert_eq!(fields.metrics.listen.as_deref(), Some("env"));
    assert!(fields.metrics.public);
    assert_eq!(fields.limits.header_timeout, Duration::from_secs(1));
    assert_eq!(fields.limits.max_bytes, ByteSize::mib(64));
}

#[test]
fn variables_reach_keys_with_underscores_and_optional_sections() {
    let env = [
        ("OCTOSERVE_LIMITS_HEADER_TIMEOUT", "2s"),
        ("OCTOSERVE_METRICS_BASIC_AUTH_USERNAME", "prometheus"),
        ("OCTOSERVE_METRICS_BASIC_AUTH_PASSWORD", "12345 #x"),
        ("OCTOSERVE_METRICS_LABELS_REGION", "eu-1"),
        (
            "OCTOSERVE_LISTEN",
            "[{address: '[::1]:1'}, {address: '1.2.3.4:5'}]",
        ),
    ];
    let fields = load_from("", &env, Vec::new()).unwrap();
    assert_eq!(fields.limits.header_timeout, Duration::from_secs(2));
    let auth = fields.metrics.basic_auth.unwrap();
    assert_eq!(
        (auth.username.as_str(), auth.password.expose()),
        ("prometheus", "12345 #x")
    );
    assert_eq!(fields.metrics.labels["region"], "eu-1");
    assert_eq!(fields.listen.len(), 2);
}

#[test]
fn an_empty_variable_leaves_what_the_file_says() {
    let env = [("OCTOSERVE_DATA", ""), ("OCTOSERVE_METRICS", "")];
    let fields = load_from("data: file\nmetrics: {public: true}\n", &env, Vec::new()).unwrap();
    assert_eq!(fields.data, "file");
    assert!(fields.metrics.public);
    let error = error_of_env("OCTOSERVE_METRCS", "");
    assert!(
        error.starts_with("OCTOSERVE_METRCS: unknown variable"),
        "{error}"
    );
}

#[test]
fn a_variable_is_a_text_where_a_text_is_wanted() {
    for text in [
        "123",
        "true",
        "[::1]:0",
        "#hash",
        "a: b",
        "5 # no comment",
        "null!",
    ] {
        let fields = load_from("", &[("OCTOSERVE_DATA", text)], Vec::new()).unwrap();
        assert_eq!(fields.data, text);
    }
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_key() {
    assert_eq!(
        error_of("data: x\nmetrics:\n  pubic: true\n"),
        "FILE:3: metrics.pubic: unknown key, did you mean public? \
         Expected one of public, listen, labels, basic_auth"
    );
    assert!(
        error_of("\ndata: x\nsurprise:\n  a: b\n").starts_with("FILE:3: surprise: unknown key")
    );
    assert!(
        error_of("listen:\n - address: '1.2.3.4:5'\n - adress: x\n")
            .starts_with("FILE:3: listen[1].adress: unknown key")
    );
}

#[test]
fn an_unknown_key_suggests_one_of_its_section_or_of_another() {
    assert_eq!(
        error_of("public: true\n"),
        "FILE:1: public: unknown key, did you mean metrics.public? \
         Expected one of listen, data, metrics, limits"
    );
    let variable = ("OCTOSERVE_METRICS_BASIC_AUTH_USRNAME", "x");
    let error = error_of_env(variable.0, variable.1);
    assert!(error.contains("did you mean username?"), "{error}");
    assert_eq!(
        error_of("surprise: 1\n"),
        "FILE:1: surprise: unknown key, expected one of listen, data, metrics, limits"
    );
}

#[test]
fn a_wrong_type_is_refused_with_file_line_and_key() {
    assert_eq!(
        error_of("metrics:\n  public: perhaps\n"),
        "FILE:2: metrics.public: expected true or false, not \"perhaps\""
    );
    assert_eq!(
        error_of("limits:\n  # a comment\n  header_timeout: 5\n"),
        "FILE:3: limits.header_timeout: expected a length of time with its unit, such as 5s, \
         not 5"
    );
    assert!(
        error_of("limits:\n  max_bytes: lots\n").starts_with("FILE:2: limits.max_bytes: `lots`")
    );
    assert!(error_of("listen:\n  - address: nowhere\n").starts_with("FILE:2: listen[0].address: "));
    assert!(error_of("metrics:\n  - 1\n").starts_with("FILE:1: metrics: "));
    assert!(
        error_of("metrics:\n  basic_auth:\n    username: x\n")
            .starts_with("FILE:2: metrics.basic_auth: the key password is missing")
    );
}

#[test]
fn invalid_yaml_is_refused_with_its_line() {
    assert!(error_of("data: x\n  metrics: [\n").starts_with("FILE:2: "));
    assert_eq!(error_of("- a\n- b\n"), "FILE:1: expected keys and values");
    assert!(error_of("data: x\ndata: y\n").contains("duplicate"));
}

#[test]
fn a_wrong_variable_or_flag_is_named() {
    assert_eq!(
        error_of_env("OCTOSERVE_METRCS_PUBLIC", "true"),
        "OCTOSERVE_METRCS_PUBLIC: unknown variable, did you mean OCTOSERVE_METRICS_PUBLIC?"
    );
    assert_eq!(
        error_of_env("OCTOSERVE_", "true"),
        "OCTOSERVE_: unknown variable"
    );
    assert_eq!(
        error_of_env("OCTOSERVE_METRICS_PUBLIC", "perhaps"),
        "OCTOSERVE_METRICS_PUBLIC: metrics.public: expected true or false, not \"perhaps\""
    );
    let error = load_from("", &[], vec![Flag::new("--data", "data", ["a", "b"])]).unwrap_err();
    assert!(
        error.starts_with("--data: data: expected a text, not a list"),
        "{error}"
    );
    let half = error_of_env("OCTOSERVE_METRICS_BASIC_AUTH_USERNAME", "x");
    assert_eq!(
        half,
        "OCTOSERVE_METRICS_BASIC_AUTH_USERNAME: metrics.basic_auth: the key password is missing"
    );
}

#[test]
fn an_error_within_a_variables_value_names_the_inner_key() {
    assert_eq!(
        error_of_env("OCTOSERVE_LISTEN", "[{address: '1.2.3.4:5'}, {adress: x}]"),
        "OCTOSERVE_LISTEN: listen[1].adress: unknown key, did you mean address? Expected address"
    );
    assert_eq!(
        error_of_env("OCTOSERVE_METRICS_PUBLIC", "5"),
        "OCTOSERVE_METRICS_PUBLIC: metrics.public: expected true or false, not 5"
    );
}

#[test]
fn configured_keys_are_distinguished_from_defaults() {
    let said = |yaml: &str, env: &[(&str, &str)], key: &str| {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(yaml.as_bytes()).unwrap();
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources {
            files: vec![file.path().to_owned()],
            env: env.collect(),
            flags: Vec::new(),
        };
        load_with_origins::<Fields>(sources)
            .unwrap()
            .origins
            .said(key)
    };
    let public = [("OCTOSERVE_METRICS_PUBLIC", "true")];
    assert!(said("metrics: {public: true}", &[], "metrics"));
    assert!(said("metrics: {public: true}", &[], "metrics.public"));
    assert!(said("", &public, "metrics"));
    assert!(said("", &public, "metrics.public"));
    assert!(!said("data: metrics", &[], "metrics"));
    assert!(!said("", &public, "limits"));
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources {
        files: vec!["/nowhere/x.yaml".into()],
        ..Sources::default()
    };
    let error = load::<Fields>(sources).unwrap_err().to_string();
    assert!(
        error.starts_with("/nowhere/x.yaml: No such file"),
        "{error}"
    );
    assert!(error.ends_with("; check the path"), "{error}");
}

#[test]
fn a_variable_that_is_broken_yaml_is_told_so_where_more_than_a_text_is_wanted() {
    let error = error_of_env("OCTOSERVE_LISTEN", "[{");
    assert!(
        error.starts_with("OCTOSERVE_LISTEN: listen: expected a list, not \"[{\": it is no YAML: ")
            && error.contains(" at line ")
            && error.contains(" column "),
        "{error}"
    );
    assert_eq!(
        load_from("", &[("OCTOSERVE_DATA", "[{")], Vec::new())
            .unwrap()
            .data,
        "[{"
    );
}

#[test]
fn a_variable_of_kubernetes_is_told_from_one_that_is_misspelt() {
    let error = error_of_env("OCTOSERVE_PORT", "tcp://10.0.0.1:5000");
    assert!(error.contains("enableServiceLinks: false"), "{error}");
}

#[test]
fn what_a_terminal_would_obey_is_never_repeated() {
    for error in [
        error_of("\"x\\ey\": 1\n"),
        error_of("metrics: {public: \"x\\ey\"}\n"),
        error_of("limits: {max_bytes: \"x\\ey\"}\n"),
        error_of_env("OCTOSERVE_LIMITS_MAX_BYTES", "x\x1by"),
        error_of_env("OCTOSERVE_X\x1bY", "1"),
    ] {
        assert!(error.contains("\\u{1b}"), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn what_is_printed_loads_again_and_shows_no_secret() {
    let yaml = "metrics: {basic_auth: {username: me, password: hunter2}, labels: {a: 'yes'}}\n";
    let fields = load_from(yaml, &[], Vec::new()).unwrap();
    let printed = print(&fields);
    assert!(!printed.contains("hunter2"), "{printed}");
    let again = load_from(&printed, &[], Vec::new()).unwrap();
    assert_eq!(print(&again), printed);
    let defaults = load_from(&print(&Fields::default()), &[], Vec::new()).unwrap();
    assert_eq!(defaults, Fields::default());
}

#[test]
fn a_callers_own_check_names_the_origin_of_the_value() {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "data: x\nlisten:\n  - address: 1.2.3.4:5").unwrap();
    let env = vec![("OCTOSERVE_METRICS_PUBLIC".to_owned(), "true".to_owned())];
    let sources = Sources {
        files: vec![file.path().to_owned()],
        env,
        flags: Vec::new(),
    };
    let loaded = load_with_origins::<Fields>(sources).unwrap();
    let path = file.path().display();
    let said = |key| loaded.origins.error(key, "no").to_string();
    assert_eq!(
        said("listen[0].address"),
        format!("{path}:3: listen[0].address: no")
    );
    assert_eq!(
        said("metrics.public"),
        "OCTOSERVE_METRICS_PUBLIC: metrics.public: no"
    );
    assert_eq!(
        said("limits.max_bytes"),
        format!("{path}: limits.max_bytes: no")
    );
}
