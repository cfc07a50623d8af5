//! `weir route`

use std::fmt::Write;

use hyper::Method;
use serde_json::json;

use super::cursor::Cursor;
use super::ledger::table;
use super::remote::{List, Where, ask, read};
use super::{Failure, block_on, say};
use crate::cloud::Question;
use crate::config::Config;
use crate::dispatch::Explanation;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["cursor", "prompt"]))]
pub(super) struct RouteArgs {
    /// The cursor: lines and columns from 1, columns in characters
    #[arg(value_name = "FILE:LINE:COLUMN")]
    cursor: Option<Cursor>,
    /// A raw prompt instead of a cursor
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    #[command(flatten)]
    place: Where,
    /// What a cloud must be to get it, as in fedramp=high,region=us-gov-west-1
    #[arg(long, value_name = "KEY=VALUE")]
    require: Option<String>,
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_tokens: u32,
    /// The answer as it came
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RouteArgs, config: &Config) -> Result<(), Failure> {
    let remote = args.place.remote(&config.serve)?;
    let question = Question {
        method: Method::POST,
        path: "/route/explain",
        headers: args.require.iter().map(|text| ("x-weir-require", text.as_str())).collect(),
        body: body(args).map_err(Failure::Other)?.to_string().into(),
    };
    let said = block_on(ask(&remote, question))??;
    if args.json {
        let text = String::from_utf8_lossy(&said.body);
        return say(&format!("{}\n", text.trim_end())).map_err(Into::into);
    }
    let told: List<Explanation> = read(&said)?;
    told.data.iter().try_for_each(|one| say(&shown(one))).map_err(Into::into)
}

fn body(args: &RouteArgs) -> Result<serde_json::Value, String> {
    let max_tokens = args.max_tokens;
    let Some(cursor) = &args.cursor else {
        return Ok(json!({ "prompt": args.prompt, "max_tokens": max_tokens }));
    };
    let (prompt, suffix) = cursor.split()?;
    let path = cursor.file.to_string_lossy();
    Ok(json!({ "prompt": prompt, "suffix": suffix, "path": path, "max_tokens": max_tokens }))
}

/// Where it would run, and everybody who might have it.
fn shown(told: &Explanation) -> String {
    let Explanation { route, reason, saturation, work_ahead_ms, ttft_objective_ms, .. } = told;
    let overflow = if told.overflow_active { "overflow is on" } else { "no overflow" };
    let mut text = format!("route  {route}: {reason}\n");
    let _infallible = writeln!(
        text,
        "box    {saturation:.2} saturated, {work_ahead_ms:.0} ms of work ahead, the objective is \
         {ttft_objective_ms:.0} ms; {overflow}\n"
    );
    let ms = |ms: Option<f64>| ms.map_or_else(|| "-".into(), |ms| format!("{ms:.0}"));
    let head = ["candidate", "verdict", "place", "ttft ms", "usd at most"];
    let local = if told.predicted_ttft_ms.is_some() { "ok" } else { "cannot" };
    let here = ["local", local, "-", &ms(told.predicted_ttft_ms), "0.00"].map(str::to_owned);
    let mut rows = vec![head.map(str::to_owned).to_vec(), here.to_vec()];
    rows.extend(told.clouds.iter().map(|cloud| {
        let place = cloud.place.map_or_else(|| "-".into(), |place| place.to_string());
        let (name, verdict) = (cloud.cloud.clone(), cloud.verdict.clone());
        let ttft = ms(cloud.predicted_ttft_ms);
        vec![name, verdict, place, ttft, cloud.cost_max_usd.clone()]
    }));
    text + &table(&rows, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Considered;

    #[test]
    fn everybody_is_shown_with_what_is_known() {
        let cloud = |cloud: &str, verdict: &str, place, ttft| Considered {
            cloud: cloud.into(),
            verdict: verdict.into(),
            place,
            predicted_ttft_ms: ttft,
            cost_max_usd: "0.000125".into(),
        };
        let told = Explanation {
            route: "cloud:near".into(),
            reason: "saturated".into(),
            saturation: 1.25,
            work_ahead_ms: 375.2,
            ttft_objective_ms: 300.0,
            predicted_ttft_ms: Some(420.6),
            overflow_active: true,
            clouds: vec![
                cloud("oci", "compliance:fedramp", None, None),
                cloud("near", "ok", Some(1), Some(120.4)),
            ],
        };
        let expected = "\
route  cloud:near: saturated
box    1.25 saturated, 375 ms of work ahead, the objective is 300 ms; overflow is on

candidate  verdict             place  ttft ms  usd at most
local      ok                      -      421         0.00
oci        compliance:fedramp      -        -     0.000125
near       ok                      1      120     0.000125
";
        assert_eq!(shown(&told), expected);
    }
}
