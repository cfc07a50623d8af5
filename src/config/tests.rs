mod aws;
#[cfg(feature = "azure")]
mod azure;
mod connection;
mod money;
mod policy;
mod services;
#[cfg(feature = "google")]
mod vertex;

use std::env::VarError;

use super::*;

fn load(text: &str) -> Result<(Config, Vec<Complaint>), Vec<Complaint>> {
    let env = |name: &str| match name {
        "KEY" => Ok("sk-secret".to_owned()),
        "PROXY_AUTH" => Ok("me:secret".to_owned()),
        "EMPTY" => Ok(String::new()),
        _ => Err(VarError::NotPresent),
    };
    Config::from_text(text, Overrides::default(), &env)
}

/// The one cloud of a text, with these variables beside `KEY`.
#[cfg(any(feature = "azure", feature = "google"))]
fn cloud_with(text: &str, variables: &[(&str, &str)]) -> Result<CloudConfig, Vec<Complaint>> {
    let env = |name: &str| match variables.iter().find(|(variable, _)| *variable == name) {
        Some((_, value)) => Ok((*value).to_owned()),
        None if name == "KEY" => Ok("sk-secret".to_owned()),
        None => Err(VarError::NotPresent),
    };
    let (config, _) = Config::from_text(text, Overrides::default(), &env)?;
    Ok(config.clouds.into_iter().next().expect("one row"))
}

/// Every complaint as it is printed.
fn complaints(text: &str) -> Vec<String> {
    let complaints = load(text).expect_err("the config is wrong");
    complaints.iter().map(ToString::to_string).collect()
}

const CLOUD: &str = r#"
    [[cloud]]
    name = "burst"
    base_url = "http://127.0.0.1:9000/v1"
    model = "qwen2.5-coder-7b"
"#;

#[test]
fn an_empty_file_is_the_default() {
    let (config, warnings) = load("").unwrap();
    assert_eq!(config.serve.listen, ["127.0.0.1:8012".parse().unwrap()]);
    assert_eq!(config.serve.listen_too, ["[::1]:8012".parse().unwrap()]);
    assert_eq!(config.model.path, ModelPath::Builtin);
    assert_eq!(config.model.slots, 8);
    assert_eq!(config.model.speculate, Speculate::Auto);
    assert_eq!(config.model.queue_max, 256);
    assert_eq!(config.overflow.ttft_objective, Duration::from_millis(300));
    assert!(config.clouds.is_empty());
    assert!(warnings.is_empty());
}

#[test]
fn the_example_of_the_readme_loads() {
    let readme = include_str!("../../README.md");
    let toml = readme.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let toml = toml.replace("BURST_API_KEY", "KEY");
    let (config, _) = load(&toml).unwrap();
    assert_eq!(config.clouds[0].name.as_ref(), "burst");
    assert_eq!(config.clouds[0].fim, CloudFim::Suffix);
    assert_eq!(config.clouds[0].api_key.as_ref().unwrap().expose(), "sk-secret");
}

#[test]
fn offline_no_row_is_in_use() {
    let text = format!("[overflow]\nanonymous_cloud = true\n{CLOUD}");
    for offline in [false, true] {
        let flags = Overrides { offline, ..Overrides::default() };
        let (config, _) = Config::from_text(&text, flags, &|_| Err(VarError::NotPresent)).unwrap();
        assert_eq!(config.clouds.len(), 1);
        assert_eq!(config.clouds_in_use().is_empty(), offline);
    }
}

const DOCS: &str = include_str!("../../docs/configuration.md");

#[test]
fn the_defaults_in_the_docs_are_the_defaults() {
    let written_out = DOCS.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let (written_out, warnings) = load(written_out).unwrap();
    let (default, _) = load("").unwrap();
    assert_eq!(format!("{written_out:?}"), format!("{default:?}"));
    assert_eq!(warnings.len(), 1, "[overflow] without a cloud: {warnings:?}");
}

#[test]
fn every_key_is_documented_in_its_section() {
    for name in [
        "[serve]",
        "[model]",
        "[overflow]",
        "[[cloud]]",
        "[[tenant]]",
        "[[path]]",
        "[[secret]]",
        "[ledger]",
    ] {
        let said = complaints(&format!("{name}\nunheard = 1"));
        let unknown = said.iter().find(|line| line.contains("unheard")).unwrap();
        let keys = unknown.split("known are ").nth(1).unwrap();
        let heading = format!("## `{name}`");
        let section = DOCS.split(&heading).nth(1).unwrap().split("\n## ").next().unwrap();
        for key in keys.split(", ") {
            assert!(section.contains(&format!("\n| `{key}` |")), "{name} {key}");
        }
    }
    for (name, provider) in [
        ("openai", "openai"),
        ("openrouter", "openrouter"),
        ("oci", "oci"),
        ("azure", "azure"),
        ("vertex", "vertex"),
        ("aws", "bedrock"),
    ] {
        let row = format!("[[cloud]]\nprovider = {provider:?}\n{name} = {{ unheard = 1 }}");
        let said = complaints(&row);
        let unknown = said.iter().find(|line| line.contains(".unheard")).unwrap();
        let heading = format!("### `[cloud.{name}]`");
        let section = DOCS.split(&heading).nth(1).unwrap().split("\n##").next().unwrap();
        for key in unknown.split("known are ").nth(1).unwrap().split(", ") {
            assert!(section.contains(&format!("\n| `{key}` |")), "{name} {key}");
        }
    }
    let said = complaints("[[tenant]]\nrequire = { unheard = 1 }");
    let unknown = said.iter().find(|line| line.contains("require.unheard")).unwrap();
    let section = DOCS.split("## `require`").nth(1).unwrap().split("\n## ").next().unwrap();
    for key in unknown.split("known are ").nth(1).unwrap().split(", ") {
        assert!(section.contains(&format!("\n| `{key}` |")), "require {key}");
    }
    let families = DOCS.split("\nFamilies: ").nth(1).unwrap().lines().next().unwrap();
    for name in families.trim_end_matches('.').split(", ") {
        let name = name.trim_matches('`');
        assert!(models::fim::Family::by_name(name).is_some(), "{name}");
    }
}

#[test]
fn the_example_of_the_docs_loads() {
    let toml = DOCS.split("```toml").nth(2).unwrap().split("```").next().unwrap();
    let (config, warnings) = load(&toml.replace("BURST_API_KEY", "KEY")).unwrap();
    assert_eq!(config.clouds[0].base_url, "http://127.0.0.1:9000/v1");
    assert_eq!(config.clouds[0].max_tokens, 256);
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn the_example_of_tenants_in_the_docs_loads() {
    let toml = DOCS.split("```toml").nth(3).unwrap().split("```").next().unwrap();
    let (config, warnings) = load(&toml.replace("GOV_API_KEY", "KEY")).unwrap();
    assert_eq!(config.policy.tenants[0].budget.per_day, Some(Micros(20_000_000)));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn an_instruction_set_that_is_not_there_is_named() {
    for isa in kernels::Isa::ALL {
        let loaded = load(&format!("[model]\nisa = \"{isa}\""));
        assert_eq!(loaded.is_ok(), isa.is_available());
        if let Err(complaints) = loaded {
            let said = complaints[0].to_string();
            assert!(said.starts_with(&format!("[model] isa: is {isa}, which this machine lacks")));
        }
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let said = complaints(
        r#"
        [serve]
        listen = ["localhost"]
        [model]
        slots = 0
        quant = "q3"
        colour = "red"
        [overflow]
        enter = 0.5
        leave = 0.9
        [[cloud]]
        name = "Burst"
        base_url = "ftp://cloud.example"
        api_key_env = "MISSING"
        "#,
    );
    let keys: Vec<_> = said.iter().map(|line| line.split(": ").next().unwrap()).collect();
    for key in
        ["[serve] listen", "[model] slots", "[model] quant", "[model] colour", "[overflow] leave"]
    {
        assert!(keys.contains(&key), "{key} is not in {said:#?}");
    }
    let about_cloud = said.iter().filter(|line| line.starts_with("[[cloud]] Burst: ")).count();
    assert_eq!(about_cloud, 4, "name, base_url, model, api_key_env: {said:#?}");
}

#[test]
fn each_wrong_key_is_named() {
    let cases: &[(&str, &str)] = &[
        ("[serve]\nlisten = 8012", "[serve] listen: must be a list of strings, is an integer"),
        ("[serve]\nlisten = []", "[serve] listen: names no address"),
        (
            "[serve]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nconnections_max = 1",
            "[serve] connections_max: must be at least one for each of 2 listen addresses, is 1",
        ),
        ("[serve]\ngrace_ms = -1", "[serve] grace_ms: must be 0 to 3600000, is -1"),
        ("[serve]\nallow_origins = [\"*\"]", "[serve] allow_origins: must be origins"),
        ("[model]\npath = \"/no/such/folder\"", "[model] path: must be builtin or a directory"),
        ("[model]\nthreads = 0", "[model] threads: must be 1 to 1024, is 0"),
        ("[model]\nslots = 1.5", "[model] slots: must be an integer, is a number"),
        (
            "[model]\nisa = \"mmx\"",
            "[model] isa: must be one of auto, amx, avx512, avx2, neon, scalar",
        ),
        ("[overflow]\nenter = nan", "[overflow] enter: must be above 0"),
        ("[overflow]\nenter = inf", "[overflow] enter: must be above 0"),
        ("[overflow]\nttft_objective_ms = 0", "[overflow] ttft_objective_ms: must be 1 to"),
        ("cloud = 3", "[[cloud]]: must be rows, each begun by [[cloud]]"),
        (
            "[clouds]",
            "clouds: unknown; there are [serve], [model], [overflow], [[cloud]], [[tenant]], [[path]], \
             [[secret]] and [ledger]",
        ),
        ("[serve", "line 1, column 7"),
    ];
    for (text, expected) in cases {
        let said = complaints(text);
        assert!(said.iter().any(|line| line.starts_with(expected)), "{text:?} said {said:#?}");
    }
}

#[test]
fn each_wrong_key_of_a_cloud_is_named() {
    let cases: &[(&str, &str)] = &[
        ("fim = \"infill\"", "fim: must be one of suffix, template, chat"),
        ("fim_family = \"qwen2.5-coder\"", "fim_family: is for fim = \"template\" only"),
        ("max_tokens = 0", "max_tokens: must be 1 to"),
        ("max_in_flight = 0", "max_in_flight: must be 1 to"),
        ("api_key_env = \"MISSING\"", "api_key_env: variable MISSING is not set"),
        ("api_key_env = \"EMPTY\"", "api_key_env: variable EMPTY is empty"),
        ("api_key_env = \"KEY\"\napi_key_file = \"x\"", "api_key_env: and api_key_file exclude"),
        ("api_key_file = \"/no/such/key\"", "api_key_file: /no/such/key: cannot be read"),
        ("idle_timeout_ms = 0", "idle_timeout_ms: must be 1 to"),
        ("unheard = 1", "unheard: unknown key"),
    ];
    for (line, expected) in cases {
        let said = complaints(&format!("{CLOUD}{line}"));
        let expected = format!("[[cloud]] burst: {expected}");
        assert!(said.iter().any(|said| said.starts_with(&expected)), "{line:?} said {said:#?}");
    }
    let twice = complaints(&format!("{CLOUD}{CLOUD}"));
    assert_eq!(twice, ["[[cloud]] burst: name: is used by an earlier row"]);
}

#[test]
fn a_password_in_a_url_is_not_repeated() {
    let said = complaints(&CLOUD.replace("127.0.0.1", "user:hunter2@127.0.0.1")).join("\n");
    assert!(said.contains("must hold no user or password"), "{said}");
    assert!(!said.contains("hunter2"));
}

#[cfg(unix)]
#[test]
fn a_key_file_that_everybody_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-secret\n").unwrap();
    let text = format!("{CLOUD}api_key_file = {path:?}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(complaints(&text)[0].contains("open to every user"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (config, _) = load(&text).unwrap();
    assert_eq!(config.clouds[0].api_key.as_ref().unwrap().expose(), "sk-secret");
    assert!(!format!("{config:?}").contains("sk-secret"));
}

#[test]
fn flags_win_over_the_file() {
    let flags = Overrides { slots: Some(2), ..Overrides::default() };
    let env = |_: &str| Err(VarError::NotPresent);
    let (config, _) = Config::from_text("[model]\nslots = 5\ncontext = 512", flags, &env).unwrap();
    assert_eq!((config.model.slots, config.model.context), (2, Some(512)));
}

#[test]
fn what_is_open_is_said() {
    let (_, warnings) = load("[serve]\nlisten = [\"0.0.0.0:8012\"]").unwrap();
    let said: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(said[0].starts_with("[serve] listen: 0.0.0.0:8012 can be reached"), "{said:?}");
    assert!(said[1].starts_with("[serve] allow_hosts: is empty"), "{said:?}");
}

#[test]
fn what_travels_in_clear_text_is_said() {
    let said = |cloud: &str| {
        let (_, warnings) = load(&format!("overflow.anonymous_cloud = true\n{cloud}")).unwrap();
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(said(CLOUD).is_empty(), "loopback");
    let far = CLOUD.replace("127.0.0.1", "192.0.2.1");
    let about = "[[cloud]] burst: base_url: is http:";
    assert_eq!(said(&far), [format!("{about} prompts travel unencrypted")]);
    let keyed = format!("{far}api_key_env = \"KEY\"");
    assert_eq!(said(&keyed), [format!("{about} prompts and the key travel unencrypted")]);
}

#[test]
fn template_fim_finds_its_family() {
    let (config, _) = load(&format!("{CLOUD}fim = \"template\"")).unwrap();
    let CloudFim::Template(family) = config.clouds[0].fim else { panic!("a template") };
    assert_eq!(family, models::fim::Family::guess("qwen2.5-coder-7b").unwrap());
    let unknown = CLOUD.replace("qwen2.5-coder-7b", "mystery");
    let said = complaints(&format!("{unknown}fim = \"template\""));
    assert!(said[0].starts_with("[[cloud]] burst: fim_family: is required"), "{said:?}");
}

#[test]
fn the_cache_is_where_the_user_keeps_caches_or_nowhere() {
    let folder = |text: &str, variables: &[(&str, &str)]| {
        let env = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
        };
        let (config, _) = Config::from_text(text, Overrides::default(), &env).unwrap();
        config.model.cache.map(|cache| (cache.folder.display().to_string(), cache.bytes_max))
    };
    let default = |folder: &str| Some((folder.to_owned(), 8192 << 20));
    let home = ("HOME", "/home/ada");
    assert_eq!(folder("", &[home]), default("/home/ada/.cache/weir"));
    assert_eq!(folder("", &[home, ("XDG_CACHE_HOME", "/cache")]), default("/cache/weir"));
    assert_eq!(folder("", &[home, ("XDG_CACHE_HOME", "cache")]), default("/home/ada/.cache/weir"));
    assert_eq!(folder("", &[]), None);
    assert_eq!(folder("model.cache_max_mb = 0", &[home]), None);
    let both = "[model]\ncache_dir = \"here\"\ncache_max_mb = 3";
    assert_eq!(folder(both, &[home]), Some(("here".to_owned(), 3 << 20)));
    assert!(complaints("model.cache_dir = \"\"")[0].starts_with("[model] cache_dir: must be"));
    assert!(complaints("model.cache_max_mb = -1")[0].contains("0 to 16777216"));
}
