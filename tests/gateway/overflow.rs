//! Overflow through the door: who is asked, what it costs, and what is written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use weir::ledger::audit;

use crate::support::cloud::{Cloud, Step, status};
use crate::support::http::{Reply, send};
use crate::support::weir::{PATIENCE, Weir, clients, comes_true};
use crate::wires::recording::private;

const AGENCY: &str = "agency-key-0123456789abcdef";
const STARTUP: &str = "startup-key-0123456789abcdef";

const AZURE_KEY: &str = "azure-key-0123456789";
const BEDROCK_KEY: &str = "bedrock-api-key-0123456789";

/// What every cloud of these tests reports.
const PROMPT_TOKENS: u64 = 100;
const COMPLETION_TOKENS: u64 = 5;

fn answer(body: &Value) -> Vec<Step> {
    vec![Step::Send(status(200, &["content-type: application/json"], &body.to_string()))]
}

/// As Azure and Oracle's OpenAI-shaped routes answer.
fn openai() -> Vec<Step> {
    let message = json!({"role": "assistant", "content": "x"});
    let total = PROMPT_TOKENS + COMPLETION_TOKENS;
    answer(&json!({"id": "1", "object": "chat.completion", "model": "coder",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS,
            "total_tokens": total}}))
}

/// As Bedrock's Converse does.
fn converse() -> Vec<Step> {
    let total = PROMPT_TOKENS + COMPLETION_TOKENS;
    answer(&json!({
        "output": {"message": {"role": "assistant", "content": [{"text": "x"}]}},
        "stopReason": "end_turn", "metrics": {"latencyMs": 1},
        "usage": {"inputTokens": PROMPT_TOKENS, "outputTokens": COMPLETION_TOKENS,
            "totalTokens": total}}))
}

/// Azure, whose quota is used up while the flag says so; AWS's government cloud; Oracle. Each with
/// its own wire and its own proof.
struct Clouds {
    azure: Cloud,
    gov: Cloud,
    oci: Cloud,
    out_of_quota: Arc<AtomicBool>,
}

impl Clouds {
    async fn start() -> Self {
        let out_of_quota = Arc::new(AtomicBool::new(true));
        let flag = out_of_quota.clone();
        let azure = Cloud::start(move |seen| {
            assert_eq!(seen.header("api-key"), Some(AZURE_KEY));
            match flag.load(Ordering::SeqCst) {
                true => {
                    let body = r#"{"error":{"code":"429","message":"Rate limit is exceeded."}}"#;
                    vec![Step::Send(status(429, &["retry-after: 2"], body)), Step::Close]
                }
                false => openai(),
            }
        });
        let gov = Cloud::start(|seen| {
            assert_eq!(seen.path(), "/model/meta.llama3-70b-instruct-v1%3A0/converse");
            assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {BEDROCK_KEY}")));
            converse()
        });
        let (azure, gov, oci) = (azure.await, gov.await, Cloud::always(openai()).await);
        Self { azure, gov, oci, out_of_quota }
    }

    /// Azure is cheaper than AWS, and Oracle is cheapest but holds no authorisation.
    fn rows(&self, folder: &TempDir) -> String {
        let row = |name: &str, cloud: &Cloud, below: &str, price: (&str, &str), more: &str| {
            let (address, (input, output)) = (cloud.address, price);
            format!(
                "[[cloud]]\nname = \"{name}\"\nprovider = \"{name}\"\n\
                 base_url = \"http://{address}{below}\"\nfim = \"chat\"\nstream = false\n\
                 price = {{ input_usd_per_mtok = {input}, output_usd_per_mtok = {output} }}\n{more}\n"
            )
        };
        let pem = include_str!("../fixtures/wires/oci/pkcs8.pem");
        let gov = format!(
            "model = \"meta.llama3-70b-instruct-v1:0\"\nfedramp = \"high\"\nattested_by = \"the test\"\n\
             regions = [\"us-gov-west-1\"]\napi_key_file = {:?}\n\
             [cloud.aws]\nregion = \"us-gov-west-1\"\napi = \"converse\"",
            private(folder, "bedrock.key", BEDROCK_KEY)
        );
        let azure = format!(
            "model = \"coder\"\nfedramp = \"high\"\nattested_by = \"the test\"\nregions = [\"usgovvirginia\"]\n\
             api_key_file = {:?}\n[cloud.azure]\npartition = \"azure-us-gov\"",
            private(folder, "azure.key", AZURE_KEY)
        );
        let oci = format!(
            "model = \"meta.llama-3.3-70b-instruct\"\n[cloud.oci]\n\
             compartment = \"ocid1.compartment.oc1..c\"\ntenancy = \"ocid1.tenancy.oc1..t\"\n\
             user = \"ocid1.user.oc1..u\"\nkey_file = {:?}\n\
             fingerprint = \"20:3b:97:13:55:1c:de:0d:d3:37:d8:50:4e:c5:3a:34\"",
            private(folder, "oci.pem", pem)
        );
        row("bedrock", &self.gov, "", ("1.0", "4.0"), &gov)
            + &row("azure", &self.azure, "/openai/v1", ("0.15", "0.6"), &azure)
            + &row("oci", &self.oci, "", ("0.01", "0.02"), &oci)
    }
}

fn weir(clouds: &Clouds, folder: &TempDir) -> Weir {
    let tenant = |name: &str, digest: &str, more: &str| {
        format!("[[tenant]]\nname = \"{name}\"\nkey_sha256 = \"{digest}\"\n{more}\n")
    };
    let agency = tenant(
        "agency",
        "4d8a9fe266b0cf97e4a6d5d3e365cbba04e391a00648442e3b5da52098a27aad",
        "require = { fedramp = \"high\" }\nbudget_usd_day = 1.0",
    );
    let startup = tenant(
        "startup",
        "813fa75a2995cc627735e25c3be4251fd09d5cfc2eac62a90ae1fa85fe11c67e",
        "budget_usd_day = 0.000001",
    );
    Weir::start(&format!(
        "model.slots = 1\nmodel.queue_max = 64\noverflow.ttft_objective_ms = 1\n\
         overflow.enter = 0.001\noverflow.leave = 0.001\nledger.path = \"{}\"\n{}{agency}{startup}",
        folder.path().join("ledger.db").display(),
        clouds.rows(folder),
    ))
}

async fn ask(weir: &Weir, path: &str, key: &str, body: &Value, more: &[(&str, &str)]) -> Reply {
    let headers: Vec<_> = [("x-api-key", key)].into_iter().chain(more.iter().copied()).collect();
    send(weir.address, "POST", path, &headers, body.to_string().as_bytes()).await
}

/// Keeps the box busy for as long as it is polled: more work than one slot does in the meantime.
async fn keep_busy(weir: &Weir) {
    let body = json!({"prompt": "fn main() {", "max_tokens": 600, "ignore_eos": true});
    let stay = [("x-weir-overflow", "never")];
    let one = || async {
        loop {
            let reply = ask(weir, "/v1/completions", AGENCY, &body, &stay).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    };
    tokio::join!(one(), one(), one(), one());
}

fn told(reply: &Reply, name: &str) -> String {
    reply.header(name).unwrap_or("nothing").to_owned()
}

fn where_and_why(reply: &Reply) -> (u16, String, String) {
    (reply.status, told(reply, "x-weir-route"), told(reply, "x-weir-reason"))
}

fn expected(route: &str, reason: &str) -> (u16, String, String) {
    (200, route.to_owned(), reason.to_owned())
}

/// Each cloud's verdict and place in an explanation.
fn verdicts(reply: &Reply) -> Vec<(String, String, Option<u64>)> {
    let clouds = reply.json()["data"][0]["clouds"].as_array().expect("a list").clone();
    let text = |cloud: &Value, key: &str| cloud[key].as_str().expect("text").to_owned();
    let told =
        |cloud: &Value| (text(cloud, "cloud"), text(cloud, "verdict"), cloud["place"].as_u64());
    clouds.iter().map(told).collect()
}

/// A FedRAMP-High tenant on a saturated box; Azure out of quota, AWS dearer, Oracle cheapest.
#[test]
fn the_founding_story() {
    let clients = clients();
    let folder = TempDir::new().expect("a temporary folder");
    let clouds = clients.block_on(Clouds::start());
    let weir = weir(&clouds, &folder);
    let body = json!({"prompt": "let a = ", "suffix": ";\n", "max_tokens": 8});
    let story = async {
        let route = "/v1/completions";
        let busy = comes_true(PATIENCE, || weir.saturation().work_ahead_ms() > 20.0).await;
        assert!(busy, "the box is busy");

        let first = ask(&weir, route, AGENCY, &body, &[]).await;
        assert_eq!(where_and_why(&first), expected("cloud:bedrock", "saturated"));
        assert_eq!(told(&first, "x-weir-cost-usd"), "0.00012", "100 at 1 and 5 at 4 per million");
        assert_eq!(clouds.azure.seen().len(), 1, "the cheaper one was asked first");

        let why = ask(&weir, "/v1/route/explain", AGENCY, &body, &[]).await;
        let out = |cloud: &str, verdict: &str, place| (cloud.into(), verdict.into(), place);
        assert_eq!(why.json()["data"][0]["route"], "cloud:bedrock");
        let azure_paused = [
            out("bedrock", "ok", Some(1)),
            out("azure", "cloud_paused", None),
            out("oci", "compliance:fedramp", None),
        ];
        assert_eq!(verdicts(&why), azure_paused);
        assert_eq!(clouds.gov.seen().len(), 1, "an explanation asks nobody");
        let second = ask(&weir, route, AGENCY, &body, &[]).await;
        assert_eq!(where_and_why(&second), expected("cloud:bedrock", "saturated"));
        assert_eq!(clouds.azure.seen().len(), 1, "who has no quota is left alone");

        clouds.out_of_quota.store(false, Ordering::SeqCst);
        let recovered = Instant::now();
        let last = loop {
            let reply = ask(&weir, route, AGENCY, &body, &[]).await;
            if told(&reply, "x-weir-route") == "cloud:azure" {
                break reply;
            }
            assert!(recovered.elapsed() < Duration::from_secs(5), "traffic returns within 5 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(told(&last, "x-weir-cost-usd"), "0.000018");
        let streamed = json!({"prompt": "let a = ", "suffix": ";\n", "max_tokens": 8, "stream": true,
            "stream_options": {"include_usage": true}});
        let streamed = ask(&weir, route, AGENCY, &streamed, &[]).await;
        let max: f64 = told(&streamed, "x-weir-cost-max-usd").parse().expect("dollars");
        assert!(max > 0.000018 && max < 0.01, "{max}");
        let usage = match &*told(&streamed, "x-weir-route") {
            "cloud:azure" => r#""cost_usd":"0.000018""#,
            _ => r#""cost_usd":"0.00012""#,
        };
        assert!(streamed.text().contains(usage), "{}", streamed.text());

        let poor = ask(&weir, route, STARTUP, &body, &[]).await;
        assert_eq!(where_and_why(&poor), expected("local", "budget_spent"));

        let metrics = send(weir.address, "GET", "/metrics", &[("x-api-key", AGENCY)], b"").await;
        let kept = r#"weir_kept_from_cloud_total{cloud="oci",reason="compliance:fedramp"}"#;
        assert!(metrics.text().contains(kept), "{}", metrics.text());
    };
    clients.block_on(async {
        tokio::select! {
            () = story => {}
            () = keep_busy(&weir) => unreachable!("it keeps on"),
        }
    });
    assert_eq!(clouds.oci.connections(), 0, "Oracle gets not one byte");
    let (sent_gov, sent_azure) = (clouds.gov.seen().len(), clouds.azure.seen().len());
    drop(weir);
    written_down(&folder, sent_gov, sent_azure);
}

/// Every attempt has its row, with its cost, in a chain that is whole.
fn written_down(folder: &TempDir, sent_gov: usize, sent_azure: usize) {
    let path = folder.path().join("ledger.db");
    let filter = audit::Filter { since: None, tenant: Some("agency") };
    let lines = audit::usage(&path, filter).expect("it can be read");
    let of = |cloud: &str| {
        let mine: Vec<_> = lines.iter().filter(|line| line.cloud == cloud).collect();
        let sum = |of: fn(&audit::UsageLine) -> u64| mine.iter().map(|line| of(line)).sum::<u64>();
        (sum(|line| line.requests), sum(|line| line.cost_usd.nano()))
    };
    assert_eq!(of("bedrock"), (sent_gov as u64, sent_gov as u64 * 120_000));
    // The first was refused, which costs nothing.
    assert_eq!(of("azure"), (sent_azure as u64, (sent_azure as u64 - 1) * 18_000));
    assert_eq!(of("oci"), (0, 0));
    let verdict = audit::verify(&path, None).expect("it can be read");
    assert_eq!(verdict.wrong, None);
}
