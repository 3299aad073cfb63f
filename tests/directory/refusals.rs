//! An etcd that cannot be used: one clear error that names the endpoint and what to do.

use crate::support::etcd::{Etcds, Options, TTL, free_ports, record};
use bulkhead::rpc::directory::etcd::{Etcd, EtcdConfig, Tls};
use bulkhead::rpc::directory::join::JoinToken;
use bulkhead::rpc::directory::{Directory, DirectoryError};

async fn refused(config: EtcdConfig) -> DirectoryError {
    match Etcd::connect(config).await {
        Ok(_) => panic!("it was let in"),
        Err(error) => error,
    }
}

#[track_caller]
fn says(error: &DirectoryError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
    assert!(!text.contains('\n'), "{text:?} is more than a sentence");
}

#[tokio::test]
async fn nobody_listens_or_it_is_no_etcd() {
    let ports = free_ports(2);
    let endpoints: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let error = refused(EtcdConfig { ttl: TTL, ..EtcdConfig::new("main", &endpoints) }).await;
    says(&error, &["no etcd endpoint answers", &endpoints[0], &endpoints[1], "refused"]);
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = mute.local_addr().unwrap().to_string();
    let error = refused(EtcdConfig { ttl: TTL, ..EtcdConfig::new("main", [&endpoint]) }).await;
    says(&error, &[&endpoint, "no answer within"]);
    let error = refused(EtcdConfig { ttl: TTL, ..EtcdConfig::new("main", ["no-such-host.invalid:2379"]) }).await;
    says(&error, &["no-such-host.invalid:2379"]);
}

#[tokio::test]
async fn one_good_endpoint_is_enough() {
    let etcds = Etcds::single().await;
    let mut endpoints: Vec<_> = free_ports(2).iter().map(|port| format!("127.0.0.1:{port}")).collect();
    endpoints.extend(etcds.endpoints());
    let etcd = Etcd::connect(EtcdConfig { endpoints, ..etcds.config() }).await.unwrap();
    etcd.register(record("a")).await.unwrap();
}

#[tokio::test]
async fn certificates_that_do_not_fit() {
    let etcds = Etcds::start(1, Options { tls: true, users: false }).await;
    let endpoint = etcds.endpoints()[0].clone();
    let plain = endpoint.replace("https://", "http://");
    let good = etcds.config();
    let error = refused(EtcdConfig { tls: None, ..good.clone() }).await;
    says(&error, &[&endpoint, "cluster.etcd_ca"]);
    let error = refused(EtcdConfig { tls: None, endpoints: vec![plain.clone()], ..good.clone() }).await;
    says(&error, &[&plain, "https://"]);
    let other = Etcds::start(1, Options { tls: true, users: false }).await;
    let error = refused(EtcdConfig { tls: other.tls(), ..good.clone() }).await;
    says(&error, &[&endpoint, "certificate", "cluster.etcd_ca"]);
    let without = Tls { identity: None, ..good.tls.clone().unwrap() };
    let error = refused(EtcdConfig { tls: Some(without), ..good.clone() }).await;
    says(&error, &[&endpoint, "cluster.etcd_cert"]);
    let unencrypted = Etcds::single().await;
    let secure = vec![unencrypted.endpoints()[0].replace("http://", "https://")];
    let error = refused(EtcdConfig { endpoints: secure.clone(), ..good.clone() }).await;
    says(&error, &[&secure[0], "does not speak TLS"]);
    let nonsense = Tls { ca: "nonsense".into(), identity: None };
    let error = refused(EtcdConfig { tls: Some(nonsense), ..good.clone() }).await;
    says(&error, &[&endpoint]);
    Etcd::connect(good).await.unwrap();
}

#[tokio::test]
async fn users_that_are_not_let_in() {
    let etcds = Etcds::start(1, Options { tls: false, users: true }).await;
    let endpoint = etcds.endpoints()[0].clone();
    let good = etcds.config();
    let user = |name: &str, password: &str| Some((name.to_string(), password.to_string()));
    let error = refused(EtcdConfig { user: None, ..good.clone() }).await;
    says(&error, &[&endpoint, "asks for a user", "cluster.etcd_user"]);
    for wrong in [user("bulkhead", "wrong"), user("nobody", "s3cret")] {
        let error = refused(EtcdConfig { user: wrong.clone(), ..good.clone() }).await;
        says(&error, &[&endpoint, &wrong.unwrap().0, "not accepted"]);
    }
    let error = refused(EtcdConfig { cluster: "other".into(), ..good.clone() }).await;
    says(&error, &[&endpoint, "\"bulkhead\"", "/bulkhead/other/"]);
    // The token carries all that it takes.
    let token = JoinToken::decode(&good.token().encode()).unwrap();
    let etcd = Etcd::connect(EtcdConfig::from_token(token)).await.unwrap();
    etcd.register(record("a")).await.unwrap();
    let open = Etcds::single().await;
    let error = refused(EtcdConfig { user: user("bulkhead", "s3cret"), ..open.config() }).await;
    says(&error, &[&open.endpoints()[0], "knows no users"]);
}

#[tokio::test]
async fn an_etcd_at_its_quota_is_told_with_what_to_do() {
    use etcd_client::{AlarmAction, AlarmType};
    let etcds = Etcds::single().await;
    let mut client = etcds.client().await;
    client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.expect("an alarm");
    let directory = etcds.connect().await;
    let refused =
        directory.register(crate::support::etcd::record("a")).await.expect_err("no lease is granted").to_string();
    assert!(refused.contains("NOSPACE") && refused.contains("etcdctl alarm disarm"), "{refused}");
    let seen =
        crate::support::etcd::see(&directory, "the alarm", |view| view.space.is_some_and(|space| space.full)).await;
    let trouble = seen.space.and_then(|space| space.trouble()).expect("it is trouble");
    assert!(trouble.contains("etcdctl alarm disarm") && seen.in_contact, "{trouble}");
    client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await.expect("disarmed");
    directory.register(crate::support::etcd::record("a")).await.expect("it goes on");
}
