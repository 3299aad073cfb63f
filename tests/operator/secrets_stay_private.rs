//! What others on the host must not read is 0600 and is never printed; what is taken already is refused by flag and key.

use crate::support::operator::{Chain, FAST, say, text};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

#[test]
fn a_devnet_keeps_its_token_and_keys_to_itself() {
    let dir = tempfile::tempdir().expect("dir");
    let chain = Chain::start(dir.path());
    let folder = dir.path().join("chain");
    for name in ["chain.redb", "token", "api-info", "jwt-secret"] {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    let info = std::fs::read_to_string(folder.join("api-info")).expect("api-info");
    assert_eq!(info, chain.api_info());
    let (token, url) = (chain.token.clone(), chain.url());
    let said = chain.process.stopped();
    let all = format!("{}{}", said.out, said.err);
    assert!(!all.contains(&token), "the token is printed: {all}");
    assert!(all.contains(&format!("$(cat '{}')", folder.join("api-info").display())), "where it is, is: {all}");
    assert!(url.starts_with("http://127.0.0.1:"));

    // one of an earlier version, which was open to others
    let database = folder.join("chain.redb");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o644)).expect("mode");
    Chain::start(dir.path()).process.stopped();
    assert_eq!(mode(&database), 0o600);
}

#[test]
fn a_taken_port_is_named_with_the_flag_and_the_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let at = taken.local_addr().expect("address").to_string();
    let dir = tempfile::tempdir().expect("dir");
    let args = ["devnet", "--chain-only", "--dir", text(dir.path()), "--listen", &at];
    let said = say(&[&args[..], FAST].concat(), &[]);
    said.refused(1, &[&at, "in use by another program", "--listen", "devnet.listen"]);
}
