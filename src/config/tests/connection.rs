//! Proxies, authorities and client certificates of `[[cloud]]` rows.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;

const ROW: &str = "[[cloud]]\nname = \"burst\"\nbase_url = \"https://cloud.example/v1\"\n\
                   model = \"m\"\n";

fn row(keys: &str) -> String {
    format!("{ROW}{keys}\n")
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;

    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_proxy_has_credentials_of_its_own() {
    let keys = "proxy = \"http://proxy.example:3128\"\nproxy_auth_env = \"PROXY_AUTH\"";
    let (config, _) = load(&row(keys)).unwrap();
    let proxy = config.clouds[0].connection.proxy.as_ref().unwrap();
    assert_eq!(proxy.uri, "http://proxy.example:3128/");
    assert_eq!(proxy.credentials.as_ref().unwrap().expose(), "me:secret");
    assert!(!format!("{config:?}").contains("me:secret"));
    let (config, _) = load(&row("proxy = \"http://[::1]:3128\"")).unwrap();
    assert!(config.clouds[0].connection.proxy.as_ref().unwrap().credentials.is_none());
    assert_eq!(load(ROW).unwrap().0.clouds[0].connection, Connection::default());
}

#[test]
fn a_proxy_that_is_none_is_complained_about() {
    for wrong in ["proxy.example:3128", "https://proxy.example:3128", "http://proxy.example", ""] {
        let said = complaints(&row(&format!("proxy = \"{wrong}\"")));
        assert_eq!(said, ["[[cloud]] burst: proxy: must be as in http://proxy.example:3128"]);
    }
    for password in ["http://me:secret@proxy.example:3128", "http://me:secret@proxy.example"] {
        let said = complaints(&row(&format!("proxy = \"{password}\"")));
        assert!(said[0].contains("must hold no user or password"), "{said:?}");
        assert!(!said[0].contains("secret"), "{said:?}");
    }
    let said = complaints(&row("proxy_auth_env = \"KEY\""));
    assert!(said[0].contains("proxy_auth_env: must hold user:password"), "{said:?}");
    assert!(said[1].contains("proxy: is required beside"), "{said:?}");
}

#[test]
fn certificates_and_keys_are_read_from_pem() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let twice = format!("an authority\n{0}\n{0}", made.pem());
    let authorities = write(folder.path(), "ca.pem", &twice);
    let certificate = write(folder.path(), "own.pem", &made.pem());
    let key_file = write(folder.path(), "own.key", &key.serialize_pem());
    let (config, _) = load(&row(&format!(
        "ca_file = {authorities:?}\nclient_cert_file = {certificate:?}\n\
         client_key_file = {key_file:?}"
    )))
    .unwrap();
    let connection = &config.clouds[0].connection;
    assert_eq!(connection.roots.as_ref().unwrap().len(), 2);
    let identity = connection.identity.as_ref().unwrap();
    assert_eq!(identity.chain[0], made.der().to_vec());
    assert_eq!(identity.key.expose(), key.serialize_der());
    assert!(format!("{config:?}").contains("PrivateKey(..)"));
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = write(folder.path(), "nothing.pem", "nothing");
    let broken = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
    let broken = write(folder.path(), "broken.pem", broken);
    let said = complaints(&row(&format!(
        "ca_file = {broken:?}\nclient_cert_file = {nothing:?}\nclient_key_file = {nothing:?}"
    )));
    assert!(said[0].contains("ca_file") && said[0].contains("is no PEM"), "{said:?}");
    assert!(said[1].contains("client_cert_file") && said[1].contains("no certificate"), "{said:?}");
    assert!(said[2].contains("client_key_file") && said[2].contains("no private key"), "{said:?}");
    for (one, other) in
        [("client_cert_file", "client_key_file"), ("client_key_file", "client_cert_file")]
    {
        let said = complaints(&row(&format!("{one} = {nothing:?}")));
        assert_eq!(said, [format!("[[cloud]] burst: {other}: is required beside {one}")]);
    }
    let plain = ROW.replace("https", "http");
    let said = complaints(&format!("{plain}proxy = \"http://a:1\"\nca_file = {broken:?}"));
    assert!(said.iter().any(|line| line.contains("proxy: is for an https")), "{said:?}");
    assert!(said.iter().any(|line| line.contains("ca_file: is for an https")), "{said:?}");
}
