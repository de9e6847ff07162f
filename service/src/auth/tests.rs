//! Right and wrong passwords, their cost, and incomplete configurations.

use std::io::Write as _;

use super::*;

/// Of `hunter2`, at the lowest cost.
fn hash() -> String {
    bcrypt::hash_with_result("hunter2", 4)
        .unwrap()
        .format_for_version(bcrypt::Version::TwoY)
}

fn headers(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    headers
}

fn basic(pair: &str) -> HeaderMap {
    headers(&format!("Basic {}", DECODER.encode(pair)))
}

fn resolve(fields: BasicAuthFields) -> Result<BasicAuth, String> {
    let resolved = fields.resolve("metrics.basic_auth", &Origins::default());
    resolved.map_err(|error| error.to_string())
}

fn fields(username: &str, hash: &str) -> BasicAuthFields {
    BasicAuthFields {
        username: Some(username.to_owned()),
        password_hash: Some(Secret::new(hash)),
        password_file: None,
    }
}

#[tokio::test]
async fn only_the_right_user_and_password_are_accepted() {
    let hashed = resolve(fields("prometheus", &hash())).unwrap();
    let known = BasicAuth::of_password("prometheus", "hunter2");
    for auth in [hashed, known] {
        for _ in 0..2 {
            let right = basic("prometheus:hunter2");
            assert_eq!(auth.check(&right).await, Verdict::Accepted);
            for wrong in [
                "prometheus:hunter3",
                "prometheus:",
                "grafana:hunter2",
                ":hunter2",
                "prometheus",
                "prometheus:hunter2 ",
            ] {
                let wrong_headers = basic(wrong);
                assert_eq!(
                    auth.check(&wrong_headers).await,
                    Verdict::Refused,
                    "{wrong}"
                );
            }
        }
    }
}

#[tokio::test]
async fn other_authorization_headers_are_refused() {
    let auth = BasicAuth::of_password("a", "b");
    let encoded = DECODER.encode("a:b");
    assert_eq!(auth.check(&HeaderMap::new()).await, Verdict::Refused);
    for (value, verdict) in [
        (format!("Basic {encoded}"), Verdict::Accepted),
        (format!("bASIC   {encoded} "), Verdict::Accepted),
        (format!("Bearer {encoded}"), Verdict::Refused),
        (encoded.clone(), Verdict::Refused),
        ("Basic".to_owned(), Verdict::Refused),
        ("Basic ???".to_owned(), Verdict::Refused),
    ] {
        assert_eq!(auth.check(&headers(&value)).await, verdict, "{value}");
    }
    let mut twice = basic("a:b");
    twice.append(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
    assert_eq!(auth.check(&twice).await, Verdict::Refused);
}

#[tokio::test]
async fn wrong_passwords_queue_and_do_not_delay_an_accepted_scraper() {
    let auth = resolve(fields("a", &hash())).unwrap();
    assert_eq!(auth.check(&basic("a:hunter2")).await, Verdict::Accepted);
    // bcrypt is in use.
    let permit = auth.0.bcrypt.acquire().await.unwrap();
    let wrong = basic("a:guess");
    let strangers: Vec<_> = (0..WAITING)
        .map(|_| {
            let (auth, wrong) = (auth.clone(), wrong.clone());
            tokio::spawn(async move { auth.check(&wrong).await })
        })
        .collect();
    while auth.0.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(auth.check(&wrong).await, Verdict::Busy);
    assert_eq!(auth.check(&basic("a:hunter2")).await, Verdict::Accepted);
    drop(permit);
    for stranger in strangers {
        assert_eq!(stranger.await.unwrap(), Verdict::Refused);
    }
}

#[test]
fn incomplete_keys_are_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"hunter2\n").unwrap();
    let path = Some(file.path().to_owned());
    let empty = tempfile::NamedTempFile::new().unwrap();
    let base = fields("a", &hash());
    for (fields, expected) in [
        (BasicAuthFields::default(), ": the key username is missing"),
        (
            BasicAuthFields {
                username: None,
                ..base.clone()
            },
            ": the key username is missing",
        ),
        (
            BasicAuthFields {
                password_hash: None,
                ..base.clone()
            },
            ": the key password_hash or password_file is missing",
        ),
        (
            BasicAuthFields {
                password_file: path.clone(),
                ..base.clone()
            },
            "exclude each other",
        ),
        (fields("", &hash()), ".username: "),
        (fields("a:b", &hash()), ".username: "),
        (fields("a", "hunter2"), ".password_hash: must be a bcrypt"),
        (fields("a", "********"), ".password_hash: must be a bcrypt"),
        (
            fields("a", &hash().replace("$04$", "$31$")),
            ".password_hash: the cost",
        ),
        (
            BasicAuthFields {
                password_hash: None,
                password_file: Some(empty.path().to_owned()),
                ..base.clone()
            },
            ".password_file: the file is empty",
        ),
        (
            BasicAuthFields {
                password_hash: None,
                password_file: Some("/does/not/exist".into()),
                ..base.clone()
            },
            ".password_file: cannot read /does/not/exist",
        ),
    ] {
        let error = resolve(fields).unwrap_err();
        assert!(error.starts_with("metrics.basic_auth"), "{error}");
        assert!(error.contains(expected), "{error}: {expected}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let filed = BasicAuthFields {
        password_hash: None,
        password_file: path,
        ..base
    };
    assert!(resolve(filed).is_ok());
}

#[tokio::test]
async fn a_password_file_holds_one_line() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"pass word \r\n").unwrap();
    let auth = resolve(BasicAuthFields {
        username: Some("a".to_owned()),
        password_hash: None,
        password_file: Some(file.path().to_owned()),
    });
    let auth = auth.unwrap();
    assert_eq!(auth.check(&basic("a:pass word ")).await, Verdict::Accepted);
    assert_eq!(auth.check(&basic("a:pass word")).await, Verdict::Refused);
}

#[test]
fn a_refusal_says_how_to_authenticate() {
    assert!(Verdict::Accepted.refusal().is_none());
    let refused = Verdict::Refused.refusal().unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = refused.headers()[WWW_AUTHENTICATE].to_str().unwrap();
    assert!(challenge.starts_with("Basic realm="), "{challenge}");
    let busy = Verdict::Busy.refusal().unwrap();
    assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(busy.headers().contains_key(RETRY_AFTER));
}
