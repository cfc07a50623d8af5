use std::env::VarError;

use super::*;

fn load(text: &str) -> Result<(Config, Vec<Complaint>), Vec<Complaint>> {
    let env = |name: &str| match name {
        "KEY" => Ok("sk-secret".to_owned()),
        "EMPTY" => Ok(String::new()),
        _ => Err(VarError::NotPresent),
    };
    Config::from_text(text, Overrides::default(), &env)
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
    assert_eq!(config.model.path, ModelPath::Builtin);
    assert_eq!(config.model.slots, 8);
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
        ("[serve]\ngrace_ms = -1", "[serve] grace_ms: must be 0 to 3600000, is -1"),
        ("[serve]\nallow_origins = [\"*\"]", "[serve] allow_origins: must be origins"),
        ("[model]\npath = \"/no/such/folder\"", "[model] path: must be builtin or a directory"),
        ("[model]\nthreads = 0", "[model] threads: must be 1 to 1024, is 0"),
        ("[model]\nslots = 1.5", "[model] slots: must be an integer, is a number"),
        ("[model]\nisa = \"mmx\"", "[model] isa: must be one of auto, avx512, avx2, neon, scalar"),
        ("[overflow]\nenter = nan", "[overflow] enter: must be above 0"),
        ("[overflow]\nenter = inf", "[overflow] enter: must be above 0"),
        ("[overflow]\nttft_objective_ms = 0", "[overflow] ttft_objective_ms: must be 1 to"),
        ("cloud = 3", "[[cloud]]: must be rows, each begun by [[cloud]]"),
        ("[clouds]", "clouds: unknown; there are [serve], [model], [overflow] and [[cloud]]"),
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
fn template_fim_finds_its_family() {
    let (config, _) = load(&format!("{CLOUD}fim = \"template\"")).unwrap();
    let CloudFim::Template(family) = config.clouds[0].fim else { panic!("a template") };
    assert_eq!(family, models::fim::Family::guess("qwen2.5-coder-7b").unwrap());
    let unknown = CLOUD.replace("qwen2.5-coder-7b", "mystery");
    let said = complaints(&format!("{unknown}fim = \"template\""));
    assert!(said[0].starts_with("[[cloud]] burst: fim_family: is required"), "{said:?}");
}

const DOCUMENT: &str = include_str!("../../docs/configuration.md");

/// The part of the document under a heading.
fn documented(heading: &str) -> &'static str {
    let part = DOCUMENT.split("\n## ").find(|part| part.starts_with(heading));
    part.unwrap_or_else(|| panic!("no heading {heading}"))
}

/// The keys whose rows a section's table has.
fn keys_documented(heading: &str) -> Vec<&'static str> {
    let rows = documented(heading).lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().expect("split gives one")).collect()
}

#[test]
fn the_document_has_exactly_the_keys_there_are() {
    for heading in ["[serve]", "[model]", "[overflow]", "[[cloud]]"] {
        let said = complaints(&format!("{heading}\nunheard = 1")).join("\n");
        let (_, known) = said.split_once("known are ").expect("an unknown key is told the known");
        let known: Vec<_> = known.lines().next().expect("a line").split(", ").collect();
        assert_eq!(keys_documented(&format!("`{heading}`")), known, "{heading}");
    }
}

#[test]
fn the_documented_example_has_all_keys_at_their_defaults() {
    let example = documented("A complete example").split("```").nth(1).unwrap();
    let example = example.strip_prefix("toml").expect("it is TOML");
    let (config, _) = load(&example.replace("BURST_API_KEY", "KEY")).unwrap();
    let (default, _) = load("").unwrap();
    assert_eq!(format!("{:?}", config.serve), format!("{:?}", default.serve));
    assert_eq!(format!("{:?}", config.model), format!("{:?}", default.model));
    assert_eq!(format!("{:?}", config.overflow), format!("{:?}", default.overflow));
    let (cloud, _) = load(CLOUD).unwrap();
    let given = |cloud: &CloudConfig| {
        let times = (cloud.connect_timeout, cloud.first_token_timeout, cloud.idle_timeout);
        (cloud.fim.clone(), cloud.max_tokens, cloud.max_in_flight, times)
    };
    assert_eq!(given(&config.clouds[0]), given(&cloud.clouds[0]));
    for heading in ["`[serve]`", "`[model]`", "`[overflow]`", "`[[cloud]]`"] {
        for key in keys_documented(heading) {
            let has_key = |line: &str| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.split(" = ").next() == Some(key)
            };
            assert!(example.lines().any(has_key), "{key} is not in the example");
        }
    }
}

#[test]
fn the_document_names_the_families() {
    for family in models::fim::FAMILIES {
        let name = format!("`{}`", family.name);
        assert!(documented("`[[cloud]]`").contains(&name), "{name} is missing");
    }
}
