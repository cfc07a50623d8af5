//! Tenants, paths and what clouds declare: what is read, and every way it is refused.

use super::*;
use crate::completion::Priority;
use crate::completion::compliance::{FedRamp, KeptHere, OnSecret};
use crate::policy::{Asks, Rules};

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn tenant(name: &str, more: &str) -> String {
    // Another digest for each name.
    let digest = format!("{:x}{}", name.len(), &DIGEST[1..]);
    format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = \"{digest}\"\n{more}\n")
}

/// A row at this address for this model.
fn at(base_url: &str, model: &str, declared: &str) -> String {
    format!("[[cloud]]\nname = \"c\"\nbase_url = \"{base_url}\"\nmodel = \"{model}\"\n{declared}\n")
}

#[test]
fn a_tenant_is_read_whole() {
    let toml = format!(
        "{CLOUD}\n{}",
        tenant(
            "agency",
            "overflow = \"never\"\nclasses = [\"chat\", \"batch\", \"chat\"]\n\
             budget_usd_day = 2.5\nbudget_usd_month = 40\n\
             cloud_budgets = { burst = { budget_usd_day = 0.000001 } }\n\
             require = { fedramp = \"high\", regions = [\"us-gov-west-1\"], retention_days = 0 }"
        )
    );
    let (config, _) = load(&toml).unwrap();
    let agency = &config.policy.tenants[0];
    assert_eq!((&*agency.name, agency.leaves), ("agency", false));
    assert_eq!(agency.classes, [Priority::Batch, Priority::Chat]);
    let (day, month) = (Some(Micros(2_500_000)), Some(Micros(40_000_000)));
    assert_eq!(agency.budget, Budget { per_day: day, per_month: month });
    let burst = Budget { per_day: Some(Micros(1)), per_month: None };
    assert_eq!(agency.cloud_budgets["burst"], burst);
    assert_eq!(agency.require.fedramp, Some(FedRamp::High));
    assert_eq!(agency.require.retention_days, Some(0));
    assert!(config.clouds_in_use().is_empty(), "nobody may leave");
}

#[test]
fn a_tenant_is_never_looser_with_secrets_than_the_house() {
    let of = |house: &str, own: &str| {
        let tenant = tenant("a", own);
        load(&format!("{house}\n{CLOUD}\n{tenant}")).map(|(config, _)| {
            let rules = config.policy.rules();
            (config.policy.on_secret, rules.tenant(0).on_secret)
        })
    };
    use OnSecret::{Redact, Stay};
    let (redact, stay) = ("overflow.on_secret = \"redact\"", "overflow.on_secret = \"stay\"");
    assert_eq!(of("", "").unwrap(), (Stay, Stay));
    assert_eq!(of(redact, "").unwrap(), (Redact, Redact));
    assert_eq!(of(redact, "on_secret = \"stay\"").unwrap(), (Redact, Stay));
    assert_eq!(of(redact, "on_secret = \"redact\"").unwrap(), (Redact, Redact));
    assert_eq!(of(stay, "on_secret = \"stay\"").unwrap(), (Stay, Stay));
    let looser = of("", "on_secret = \"redact\"").unwrap_err();
    assert!(looser[0].to_string().starts_with("[[tenant]] a: on_secret: is looser"), "{looser:?}");
    let unknown = of("overflow.on_secret = \"ignore\"", "").unwrap_err();
    assert!(unknown[0].to_string().starts_with("[overflow] on_secret: must be one of"));
}

#[test]
fn clouds_are_used_by_tenants_or_when_it_was_said() {
    let (off, warnings) = load(CLOUD).unwrap();
    assert_eq!((off.clouds.len(), off.clouds_in_use().len()), (1, 0));
    assert!(warnings[0].to_string().starts_with("[overflow] anonymous_cloud: is off and there"));
    assert_eq!(off.policy.rules().tenant(0).away, Err(KeptHere::Anonymous));
    let (on, warnings) = load(&format!("overflow.anonymous_cloud = true\n{CLOUD}")).unwrap();
    assert_eq!((on.clouds_in_use().len(), warnings.len()), (1, 0));
    assert_eq!(on.policy.rules().tenant(0).away, Ok(()));
    let (keyed, warnings) = load(&format!("{CLOUD}{}", tenant("a", ""))).unwrap();
    assert_eq!((keyed.clouds_in_use().len(), warnings.len()), (1, 0));
    let both = format!("overflow.anonymous_cloud = true\n{CLOUD}{}", tenant("a", ""));
    let (_, warnings) = load(&both).unwrap();
    assert!(warnings[0].to_string().contains("has no effect with [[tenant]] rows"));
    let more = tenant("a", "require = { fedramp = \"low\" }");
    let (_, warnings) = load(&format!("{CLOUD}{more}")).unwrap();
    assert!(warnings[0].to_string().starts_with("[[tenant]] a: require: is more than any"));
}

#[cfg(unix)]
#[test]
fn keys_come_from_files_and_digests_and_are_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let write = |text: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let row =
        format!("[[tenant]]\nname = \"a\"\nkey_file = [{path:?}]\nkey_sha256 = [\"{DIGEST}\"]");
    write("sk-0123456789abcdefghijklmnop\n");
    let (config, _) = load(&row).unwrap();
    let Asks::Key(keys) = config.policy.rules().asks else { panic!("there is a tenant") };
    assert_eq!(keys.find("sk-0123456789abcdefghijklmnop"), Some(0));
    assert_eq!(keys.find("test"), Some(0), "by its digest");
    assert_eq!(keys.find("tests"), None);
    assert!(!format!("{config:?}").contains("sk-0123"));
    write("too-short");
    assert!(complaints(&row)[0].contains("key_file: "), "{:?}", complaints(&row));
    let text = "0123456789abcdefghijklmnopqr";
    write(text);
    let typed = format!("[[tenant]]\nname = \"a\"\nkey_sha256 = \"{text}\"");
    assert!(!complaints(&typed).concat().contains(text), "a key typed for its digest");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    assert!(complaints(&row)[0].contains("open to every user"));
}

#[test]
fn each_wrong_key_of_a_tenant_or_a_path_is_named() {
    let of_tenant = [
        ("name = \"A B\"\nkey_sha256 = \"x\"", "[[tenant]] A B: name: must be at most 64"),
        ("key_sha256 = \"x\"", "[[tenant]] row 1: name: is required"),
        ("name = \"a\"", "[[tenant]] a: key_file: or key_sha256 is required"),
        ("name = \"a\"\nkey_file = []", "[[tenant]] a: key_file: or key_sha256 is required"),
        ("name = \"a\"\nkey_sha256 = \"ab\"", "[[tenant]] a: key_sha256: must be SHA-256"),
        ("name = \"a\"\nkey_file = \"/no/such\"", "[[tenant]] a: key_file: /no/such: cannot be"),
        ("name = \"a\"\noverflow = \"only\"", "[[tenant]] a: overflow: must be one of auto, never"),
        ("name = \"a\"\nclasses = []", "[[tenant]] a: classes: must name at least one"),
        ("name = \"a\"\nclasses = [\"x\"]", "[[tenant]] a: classes: must be one of completion"),
        ("name = \"a\"\nbudget_usd_day = -1", "[[tenant]] a: budget_usd_day: must be 0 to"),
        ("name = \"a\"\nbudget_usd_day = nan", "[[tenant]] a: budget_usd_day: must be 0 to"),
        ("name = \"a\"\nbudget_usd_month = 1e10", "[[tenant]] a: budget_usd_month: must be 0 to"),
        (
            "name = \"a\"\nbudget_usd_month = 0.0000001",
            "[[tenant]] a: budget_usd_month: must be in whole millionths",
        ),
        (
            "name = \"a\"\ncloud_budgets = { far = {} }",
            "[[tenant]] a: cloud_budgets.far: is no [[cloud]]",
        ),
        (
            "name = \"a\"\ncloud_budgets = { far = { usd = 1 } }",
            "[[tenant]] a: cloud_budgets.far.usd: unknown key",
        ),
        ("name = \"a\"\nrequire = 1", "[[tenant]] a: require: must be a table, is an integer"),
        (
            "name = \"a\"\nrequire = { fedramp = \"top\" }",
            "[[tenant]] a: require.fedramp: must be one of low, moderate, high",
        ),
        (
            "name = \"a\"\nrequire = { regions = [] }",
            "[[tenant]] a: require.regions: must not be empty",
        ),
        (
            "name = \"a\"\nrequire = { realms = [\"AWS\"] }",
            "[[tenant]] a: require.realms: must be at most 64 of",
        ),
        (
            "name = \"a\"\nrequire = { retention_days = -1 }",
            "[[tenant]] a: require.retention_days: must be 0 to",
        ),
    ];
    let of_path = [
        ("policy = \"never-cloud\"", "[[path]] row 1: pattern: is required"),
        (
            "pattern = \"/etc\"\npolicy = \"never-cloud\"",
            "[[path]] /etc: pattern: must be relative",
        ),
        ("pattern = \"[\"\npolicy = \"never-cloud\"", "[[path]] [: pattern: is no pattern"),
        ("pattern = \"a\"", "[[path]] a: policy: is required"),
        ("pattern = \"a\"\npolicy = \"never\"", "[[path]] a: policy: must be one of never-cloud"),
        (
            "pattern = \"a\"\npolicy = \"cloud-only\"\ntenant = \"b\"",
            "[[path]] a: tenant: is no [[tenant]]",
        ),
    ];
    let rows = of_tenant.iter().map(|(text, said)| (format!("[[tenant]]\n{text}"), *said));
    let rows = rows.chain(of_path.iter().map(|(text, said)| (format!("[[path]]\n{text}"), *said)));
    for (text, expected) in rows {
        let said = complaints(&text);
        assert!(said.iter().any(|line| line.starts_with(expected)), "{text:?} said {said:#?}");
    }
    let said = complaints(&format!("{}{}", tenant("a", ""), tenant("a", "")));
    assert!(said.contains(&"[[tenant]] a: name: is used by an earlier row".to_owned()), "{said:?}");
    let said = complaints(&format!("{}{}", tenant("a", ""), tenant("b", "")));
    assert_eq!(said, ["[[tenant]] b: key_sha256: or key_file has a key that is there already"]);
    let said = complaints("[overflow]\nunknown_path = \"yes\"\nanonymous_cloud = 1");
    assert!(said[0].starts_with("[overflow] anonymous_cloud: must be true or false"), "{said:?}");
    assert!(
        said[1].starts_with("[overflow] unknown_path: must be one of allow, never"),
        "{said:?}"
    );
}

const EAST: &str = "https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1";
const GOV: &str = "https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/openai/v1";
const ORACLE: &str = "https://inference.generativeai.us-chicago-1.oci.oraclecloud.com/openai/v1";
const GLOBAL: &str =
    "https://aiplatform.googleapis.com/v1/projects/p/locations/global/endpoints/openapi";
const VERTEX: &str =
    "https://us-east4-aiplatform.googleapis.com/v1/projects/p/locations/us-east4/endpoints/openapi";
const MIXED: &str =
    "https://aiplatform.googleapis.com/v1/projects/p/locations/us-east4/endpoints/openapi";
const AZURE: &str = "https://res.openai.azure.com/openai/v1";
const AZURE_GOV: &str = "https://res.openai.azure.us/openai/v1";
const OWN: &str = "https://vllm.agency.example/v1";

#[test]
fn what_an_address_contradicts_is_refused() {
    // Address, model, declaration, and the key that is wrong.
    let cases = [
        (EAST, "meta.llama", "realm = \"aws-us-gov\"", "realm"),
        (GOV, "meta.llama", "realm = \"aws\"", "realm"),
        (ORACLE, "m", "realm = \"oc2\"", "realm"),
        (AZURE_GOV, "d", "realm = \"azure\"", "realm"),
        (AZURE, "d", "realm = \"azure-us-gov\"", "realm"),
        (EAST, "meta.llama", "regions = [\"us-gov-west-1\"]", "regions"),
        (EAST, "meta.llama", "regions = [\"us-east-1\", \"us-west-2\"]", "regions"),
        (EAST, "us.meta.llama", "regions = [\"us-east-1\"]", "regions"),
        (
            EAST,
            "us.meta.llama",
            "regions = [\"us-east-1\", \"us-east-2\", \"us-west-2\", \"eu-west-1\"]",
            "regions",
        ),
        (EAST, "global.anthropic.claude", "regions = [\"us-east-1\"]", "regions"),
        (EAST, "eu.anthropic.claude", "regions = [\"us-east-1\"]", "regions"),
        (EAST, "zz.anthropic.claude", "regions = [\"us-gov-west-1\"]", "regions"),
        (EAST, "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/meta.x", "", "model"),
        (EAST, "arn:aws:bedrock:us-west-2::foundation-model/meta.x", "", "model"),
        (GLOBAL, "google/gemini", "regions = [\"us-east4\"]", "regions"),
        (VERTEX, "google/gemini", "regions = [\"us-central1\"]", "regions"),
        (MIXED, "google/gemini", "", "base_url"),
        (AZURE, "d", "regions = [\"usgovvirginia\"]", "regions"),
        (AZURE_GOV, "d", "regions = [\"eastus\"]", "regions"),
        (ORACLE, "m", "regions = [\"us-langley-1\"]", "regions"),
        // Levels above what is known.
        (ORACLE, "m", "regions = [\"us-chicago-1\"]\nfedramp = \"low\"", "fedramp"),
        (EAST, "meta.llama", "regions = [\"us-east-1\"]\nfedramp = \"high\"", "fedramp"),
        (GOV, "meta.llama", "fedramp = \"high\"", "fedramp"),
        (GOV, "mistral.devstral", "regions = [\"us-gov-west-1\"]\nfedramp = \"low\"", "fedramp"),
        (
            GOV,
            "meta.llama",
            "regions = [\"us-gov-west-1\"]\nimpact_level = \"il6\"",
            "impact_level",
        ),
        (VERTEX, "mistralai/x", "regions = [\"us-east4\"]\nfedramp = \"high\"", "fedramp"),
        (AZURE, "d", "regions = [\"westeurope\"]\nfedramp = \"moderate\"", "fedramp"),
        (OWN, "m", "regions = [\"agency\"]\nfedramp = \"low\"", "fedramp"),
        (OWN, "m", "impact_level = \"il2\"", "impact_level"),
        (OWN, "m", "attested_by = \" \"", "attested_by"),
        (OWN, "m", "certifications = [\"ISO 27001\"]", "certifications"),
        (OWN, "m", "retention_days = -1", "retention_days"),
    ];
    for (url, model, declared, key) in cases {
        let said = complaints(&at(url, model, declared));
        let expected = format!("[[cloud]] c: {key}: ");
        assert_eq!(said.len(), 1, "{url} {model} {declared}: {said:#?}");
        assert!(said[0].starts_with(&expected), "{url} {model} {declared}: {said:#?}");
    }
}

#[test]
fn what_an_address_does_not_contradict_is_believed() {
    let cases = [
        (EAST, "meta.llama", "realm = \"aws\"\nregions = [\"us-east-1\"]\nfedramp = \"moderate\""),
        (EAST, "us.meta.llama", "regions = [\"us-east-1\", \"us-east-2\", \"us-west-2\"]"),
        (EAST, "global.anthropic.claude", "realm = \"aws\""),
        (
            GOV,
            "us-gov.anthropic.claude",
            "regions = [\"us-gov-east-1\", \"us-gov-west-1\"]\nfedramp = \"high\"\nimpact_level = \"il5\"",
        ),
        (AZURE, "d", "regions = [\"eastus2\"]\nfedramp = \"high\""),
        (
            AZURE_GOV,
            "d",
            "realm = \"azure-us-gov\"\nregions = [\"usgovvirginia\"]\nfedramp = \"high\"",
        ),
        (VERTEX, "google/gemini", "regions = [\"us-east4\"]\nfedramp = \"high\""),
        (ORACLE, "m", "realm = \"oc1\"\nregions = [\"us-chicago-1\"]\ncertifications = [\"soc2\"]"),
        (OWN, "m", "realm = \"agency\"\nregions = [\"basement\"]\nretention_days = 0"),
        (OWN, "m", "fedramp = \"high\"\nattested_by = \"the agency's ATO of 2026-03-01\""),
        (ORACLE, "m", "fedramp = \"high\"\nattested_by = \"somebody who answers for it\""),
    ];
    for (url, model, declared) in cases {
        let loaded = load(&at(url, model, declared));
        assert!(loaded.is_ok(), "{url} {model} {declared}: {loaded:?}");
    }
}

#[test]
fn numbers_stay_with_names_whatever_becomes_of_the_rows() {
    use crate::completion::{FimInput, Input};
    use crate::policy::Roster;
    use crate::policy::asked::Asked;
    let mut roster = Roster::default();
    let mut rules = |toml: &str| load(toml).unwrap().0.policy.rules_in(&mut roster).unwrap();
    // Of nine letters, so that its key is "test".
    let [nine, bb, ccc] = ["nineninen", "bb", "ccc"].map(|name| tenant(name, ""));
    let anybody = rules("");
    assert!(matches!(anybody.asks, Asks::Nobody(0)) && !anybody.ask_for_keys());
    assert_eq!(&*anybody.tenant(0).name, "default");
    let both = rules(&format!("{nine}{bb}"));
    let names =
        |rules: &Rules| rules.names().iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&both), ["", "nineninen", "bb"]);
    let find = |rules: &Rules| match &rules.asks {
        Asks::Key(keys) => keys.find("test"),
        Asks::Nobody(_) => panic!("there are tenants"),
    };
    assert_eq!(find(&both), Some(1));
    let own = "[[path]]\npattern = \"x\"\npolicy = \"never-cloud\"\ntenant = \"bb\"\n";
    let later = rules(&format!("{ccc}{bb}{own}"));
    assert_eq!(names(&later), ["", "", "bb", "ccc"]);
    let x = Input::Fim(FimInput { path: Some("x".into()), ..FimInput::default() });
    let away = |number| later.settle(number, &Asked::default(), &x).away;
    assert_eq!((away(2), away(3)), (Err(KeptHere::Path), Ok(())), "the rule is about bb");
    assert_eq!(find(&later), None, "whoever had it is gone");
    let default = rules(&tenant("default", ""));
    assert_eq!(names(&default), ["", "", "", "", "default"], "it is not whoever had no key");
    assert!(matches!(rules("").asks, Asks::Nobody(0)));
}
