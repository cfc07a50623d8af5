use super::*;
use crate::config::services::{FimRoute, KeyError, OciFormat, OciServing};

fn row(provider: &str, more: &str) -> String {
    format!("[[cloud]]\nname = \"burst\"\nmodel = \"coder\"\nprovider = {provider:?}\n{more}\n")
}

fn cloud(text: &str) -> CloudConfig {
    let (config, _) = load(text).unwrap_or_else(|said| panic!("{said:?}\n{text}"));
    config.clouds.into_iter().next().unwrap()
}

fn said(text: &str) -> String {
    complaints(text).join("\n")
}

#[test]
fn providers_are_where_they_are_and_fill_in_as_they_can() {
    let cases = [
        ("mistral", "", "https://api.mistral.ai/v1", CloudFim::Suffix),
        ("deepseek", "", "https://api.deepseek.com/beta", CloudFim::Suffix),
        (
            "openrouter",
            "openrouter.only = [\"deepinfra\"]",
            "https://openrouter.ai/api/v1",
            CloudFim::Chat,
        ),
        ("nim", "fim = \"chat\"", "https://integrate.api.nvidia.com/v1", CloudFim::Chat),
        ("weir", "base_url = \"http://127.0.0.1:9/v1\"", "http://127.0.0.1:9/v1", CloudFim::Peer),
    ];
    for (provider, more, url, fim) in cases {
        let cloud = cloud(&row(provider, more));
        assert_eq!((cloud.base_url.to_string(), cloud.fim), (url.to_owned(), fim), "{provider}");
    }
    let own = cloud(&row("mistral", "base_url = \"https://codestral.mistral.ai/v1\""));
    assert_eq!(own.base_url.host(), Some("codestral.mistral.ai"), "what is typed wins");
    let CloudService::Dialect(dialect) = own.service else { panic!("{:?}", own.service) };
    assert_eq!(dialect.fim, FimRoute::FimCompletions);
    let thinking = "base_url = \"https://a.example/v1\"\nopenai.sampling = false";
    let CloudService::Dialect(dialect) = cloud(&row("openai", thinking)).service else { panic!() };
    assert!(!dialect.sampling && !dialect.penalties, "what is not sent is not promised");
    assert!(said(&row("weir", "")).contains("base_url: is required"));
}

#[test]
fn what_a_provider_lacks_is_not_asked_of_it() {
    let cases = [
        ("nim", "fim = \"suffix\"", "fim: must be one of template, chat"),
        ("mistral", "fim = \"template\"", "fim: must be one of suffix, chat"),
        ("deepseek", "max_tokens = 4097", "max_tokens: must be at most 4096 there"),
        ("openrouter", "", "openrouter.only: is required"),
        ("openrouter", "openrouter.only = []", "openrouter.only: is required"),
        ("openrouter", "openrouter.only = [\"a\\n\"]", "openrouter.only: must be at most 16 names"),
        ("openrouter", "openrouter.zdr = true", "openrouter.only: is required"),
        ("mistral", "openrouter.only = [\"a\"]", "openrouter: is for provider = \"openrouter\""),
        ("openai", "openai.reasoning_effort = \"much\"", "openai.reasoning_effort: must be one of"),
        ("weir", "fim = \"suffix\"", "fim: is not for provider = \"weir\""),
        ("sun", "", "provider: must be one of openai, mistral"),
    ];
    for (provider, more, expected) in cases {
        let said = said(&row(provider, more));
        assert!(said.contains(&format!("[[cloud]] burst: {expected}")), "{more}: {said}");
    }
}

/// Every row that the docs write out loads, but for its names and keys.
#[cfg(feature = "oci")]
#[test]
fn the_rows_of_the_docs_load() {
    let clouds = include_str!("../../../docs/clouds.md");
    let scale_out = include_str!("../../../docs/scale-out.md");
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".oci")).unwrap();
    let key = oci::private(&home, "key.pem", oci::PEM);
    oci::private(&home, ".oci/config", &oci::profiles(&key));
    let env = |name: &str| match name {
        "HOME" => Ok(home.path().display().to_string()),
        name if name.ends_with("_KEY") => Ok("sk-secret".to_owned()),
        _ => Err(VarError::NotPresent),
    };
    let mine =
        ["OpenAI", "Any", "NVIDIA", "Mistral", "DeepSeek", "OpenRouter", "Another", "Oracle"];
    let sections = clouds.split("\n## ").filter(|text| mine.iter().any(|m| text.starts_with(m)));
    let texts: Vec<&str> = sections.chain([scale_out]).collect();
    assert_eq!(texts.len(), mine.len() + 1);
    for block in texts.iter().flat_map(|text| text.split("```toml").skip(1)) {
        let toml = block.split("```").next().unwrap();
        let loaded = Config::from_text(toml, Overrides::default(), &env);
        let (config, _) = loaded.unwrap_or_else(|said| panic!("{said:?}\n{toml}"));
        assert!(!config.clouds.is_empty(), "{toml}");
    }
}

#[cfg(feature = "oci")]
mod oci {
    use super::*;

    pub(super) const PEM: &str = include_str!("../../../tests/fixtures/wires/oci/pkcs8.pem");
    const FINGERPRINT: &str = "20:3b:97:13:55:1c:de:0d:d3:37:d8:50:4e:c5:3a:34";

    pub(super) fn private(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }

    pub(super) fn profiles(key: &str) -> String {
        format!(
            "[DEFAULT]\nregion = us-ashburn-1\ntenancy=ocid1.tenancy.oc1..d\n# user=none\n\
             user=ocid1.user.oc1..d\nfingerprint={FINGERPRINT}\nkey_file={key}\n\
             [EU]\nregion=eu-frankfurt-2\nuser = ocid1.user.oc19..e\n"
        )
    }

    fn keys(key_file: &str) -> String {
        format!(
            "oci.tenancy = \"ocid1.tenancy.oc1..t\"\noci.user = \"ocid1.user.oc1..u\"\n\
             oci.fingerprint = \"{FINGERPRINT}\"\noci.key_file = {key_file:?}\n\
             oci.compartment = \"ocid1.compartment.oc1..c\"\n"
        )
    }

    #[test]
    fn a_row_says_everything_itself_or_a_profile_does() {
        let folder = tempfile::tempdir().unwrap();
        let key = private(&folder, "key.pem", PEM);
        let whole = cloud(&row("oci", &format!("oci.region = \"us-chicago-1\"\n{}", keys(&key))));
        let host = "inference.generativeai.us-chicago-1.oci.oraclecloud.com";
        assert_eq!(whole.base_url.to_string(), format!("https://{host}/20231130"));
        assert_eq!(whole.fim, CloudFim::Chat);
        let CloudService::Oci(own) = whole.service else { panic!("{:?}", whole.service) };
        assert_eq!(&*own.key.id, format!("ocid1.tenancy.oc1..t/ocid1.user.oc1..u/{FINGERPRINT}"));
        assert_eq!((own.format, own.serving), (OciFormat::Generic, OciServing::OnDemand));

        let file = private(&folder, "config", &profiles(&key));
        let more = format!(
            "oci.config_file = {file:?}\noci.profile = \"EU\"\noci.domain = \"oraclecloud.eu\"\n\
             oci.compartment = \"ocid1.compartment.oc19..c\"\noci.format = \"cohere\"\n\
             oci.endpoint = \"ocid1.generativeaiendpoint.oc19..e\"\nrealm = \"oc19\"\n\
             regions = [\"eu-frankfurt-2\"]"
        );
        let profiled = cloud(&row("oci", &more));
        let host = "inference.generativeai.eu-frankfurt-2.oci.oraclecloud.eu";
        assert_eq!(profiled.base_url.host(), Some(host));
        let CloudService::Oci(own) = profiled.service else { panic!("{:?}", profiled.service) };
        assert!(own.key.id.starts_with("ocid1.tenancy.oc1..d/ocid1.user.oc19..e/"));
        assert_eq!(own.format, OciFormat::Cohere);
        let other = more.replace("regions = [\"eu-frankfurt-2\"]", "regions = [\"us-ashburn-1\"]");
        assert!(said(&row("oci", &other)).contains("regions: must be eu-frankfurt-2 alone"));
        let gone = more.replace("\"EU\"", "\"MARS\"");
        assert!(said(&row("oci", &gone)).contains("has no profile [MARS]"));
    }

    #[test]
    fn the_openai_shape_has_a_key_and_no_signature() {
        let more = "api_key_env = \"KEY\"\noci.api = \"openai\"\noci.region = \"us-chicago-1\"";
        let shaped = cloud(&row("oci", more));
        assert_eq!(shaped.base_url.path(), "/openai/v1");
        assert!(matches!(shaped.service, CloudService::Dialect(_)));
        let unkeyed = more.replace("api_key_env = \"KEY\"", "");
        assert!(said(&row("oci", &unkeyed)).contains("api_key_env: or api_key_file is required"));
        let both = format!("{more}\noci.compartment = \"ocid1.compartment.oc1..c\"");
        assert!(said(&row("oci", &both)).contains("oci.compartment: is for oci.api = \"chat\""));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let key = private(&folder, "key.pem", PEM);
        let sealed = PEM.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let sealed = private(&folder, "sealed.pem", &sealed);
        let good = format!("oci.region = \"us-chicago-1\"\n{}", keys(&key));
        assert!(load(&row("oci", &good)).is_ok());
        let none = "oci.config_file = \"/no/such/file\"".to_owned();
        let cases = [
            (String::new(), "oci: is required"),
            (none, "oci.config_file: /no/such/file: cannot be read"),
            (good.replace("us-chicago-1", "US Chicago"), "oci.region: must be a region"),
            (format!("{good}oci.domain = \"com\""), "oci.domain: must be a domain"),
            (good.replace("ocid1.compartment", "compartment"), "oci.compartment: must be an OCID"),
            (good.replace(FINGERPRINT, "20:3b"), "oci.fingerprint: must be 16 pairs"),
            (
                good.replace(&key, &sealed),
                &*format!("oci.key_file: {sealed}: {}", KeyError::Encrypted),
            ),
            (format!("{good}api_key_env = \"KEY\""), "api_key_env: and api_key_file are for"),
            (format!("{good}fim = \"suffix\""), "fim: must be one of chat"),
            (format!("{good}oci.format = \"llama\""), "oci.format: must be one of generic, cohere"),
            (format!("{good}fedramp = \"high\""), "fedramp: is more than weir knows"),
        ];
        for (more, expected) in cases {
            let said = said(&row("oci", &more));
            assert!(said.contains(&format!("[[cloud]] burst: {expected}")), "{expected}: {said}");
        }
    }
}
