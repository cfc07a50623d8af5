//! What keys look like: the prefixes that providers give theirs, so that they can be found.

/// What must hold of a match's group `value` beside the pattern. The group is the secret itself;
/// without one the whole match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    None,
    /// It looks drawn.
    Random,
    NotAPlaceholder,
    /// Before the mark is a number in base64, which is the token's first part.
    BehindAnId,
}

/// Where a pattern is held against a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Anywhere in a text that holds a mark.
    Anywhere,
    /// Right behind each mark, and no further than [`BEHIND_BYTES`]. For marks that many texts
    /// hold: a search for such a pattern has too many places at once to begin at.
    Behind,
}

/// What a pattern behind a mark may see.
pub(super) const BEHIND_BYTES: usize = 256;

pub(super) struct Format {
    /// Told in logs, metrics and headers: letters, digits and hyphens.
    pub(super) name: &'static str,
    /// Texts of which each match holds one, in whatever case, so that the pattern is looked for
    /// only where one is.
    pub(super) marks: &'static [&'static str],
    pub(super) place: Place,
    /// Of bytes, without Unicode classes.
    pub(super) pattern: &'static str,
    pub(super) check: Check,
}

const fn sure(name: &'static str, marks: &'static [&'static str], pattern: &'static str) -> Format {
    Format { name, marks, place: Place::Anywhere, pattern, check: Check::None }
}

pub(super) const CONNECTION_STRING: &str = "connection-string";
pub(super) const GENERIC_SECRET: &str = "generic-secret";
/// Where it is found, a key may reach to its last line.
pub(super) const PRIVATE_KEY: &str = "private-key";
/// Where it is found, a key began before.
pub(super) const PRIVATE_KEY_END: &str = "private-key-end";

pub(super) const FORMATS: &[Format] = &[
    sure(
        "aws-access-key",
        &["AKIA", "ASIA", "ABIA", "ACCA"],
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
    ),
    sure("aws-bedrock-key", &["ABSK"], r"\bABSK[A-Za-z0-9+/]{100,}"),
    sure("github-token", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], r"\bgh[pousr]_[A-Za-z0-9]{36}"),
    sure("github-fine-grained", &["github_pat_"], r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    sure(
        "gitlab-token",
        &["glpat-", "gldt-", "glrt-", "glptt-", "glft-", "glsoat-", "glcbt-"],
        r"\bgl(?:pat|dt|rt|ptt|ft|soat|cbt)-[A-Za-z0-9_-]{20}",
    ),
    sure("slack-token", &["xox"], r"\bxox[abeoprs]-[A-Za-z0-9-]{20}"),
    sure("slack-app", &["xapp-"], r"\bxapp-[0-9]-[A-Z0-9]{8,}-[0-9]+-[a-f0-9]{32}"),
    sure(
        "slack-webhook",
        &["hooks.slack.com"],
        r"hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20}",
    ),
    sure("stripe-key", &["k_live_"], r"\b[rs]k_live_[A-Za-z0-9]{24}"),
    sure("stripe-webhook", &["whsec_"], r"\bwhsec_[A-Za-z0-9]{32}"),
    sure(
        "openai-key",
        &["T3BlbkFJ"],
        r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20}",
    ),
    sure("anthropic-key", &["sk-ant-"], r"\bsk-ant-[a-z]{3}[0-9]{2}-[A-Za-z0-9_-]{80}"),
    sure("openrouter-key", &["sk-or-"], r"\bsk-or-v1-[0-9a-f]{64}"),
    sure("groq-key", &["gsk_"], r"\bgsk_[A-Za-z0-9]{52}"),
    sure("nvidia-key", &["nvapi-"], r"\bnvapi-[A-Za-z0-9_-]{60}"),
    sure("replicate-token", &["r8_"], r"\br8_[A-Za-z0-9]{37}"),
    sure("perplexity-key", &["pplx-"], r"\bpplx-[A-Za-z0-9]{48}"),
    sure("xai-key", &["xai-"], r"\bxai-[A-Za-z0-9]{80}"),
    sure("huggingface-token", &["hf_"], r"\bhf_[A-Za-z]{34}"),
    sure("google-api-key", &["AIza"], r"\bAIza[0-9A-Za-z_-]{35}"),
    sure("google-oauth-secret", &["GOCSPX-"], r"\bGOCSPX-[A-Za-z0-9_-]{28}"),
    sure("google-oauth-token", &["ya29."], r"\bya29\.[A-Za-z0-9_.-]{30,}"),
    sure("azure-storage-key", &["AccountKey="], r"AccountKey=(?P<value>[A-Za-z0-9+/]{86}==)"),
    sure("azure-client-secret", &["Q~"], r"\b[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),
    sure("azure-sas", &["sig="], r"[?&]sig=(?P<value>[A-Za-z0-9%]{43,}%3D)"),
    sure("npm-token", &["npm_"], r"\bnpm_[A-Za-z0-9]{36}"),
    sure("pypi-token", &["pypi-AgE"], r"\bpypi-AgE[A-Za-z0-9_-]{50}"),
    sure("rubygems-key", &["rubygems_"], r"\brubygems_[a-f0-9]{48}"),
    sure("docker-token", &["dckr_"], r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{27}"),
    sure("sendgrid-key", &["SG."], r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    sure("mailgun-key", &["key-"], r"\bkey-[0-9a-f]{32}\b"),
    sure("mailchimp-key", &["-us"], r"\b[0-9a-f]{32}-us[0-9]{1,2}\b"),
    sure("twilio-key", &["SK"], r"\bSK[0-9a-f]{32}\b"),
    sure("telegram-token", &[":AA"], r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    sure("digitalocean-token", &["_v1_"], r"\bdo[opr]_v1_[a-f0-9]{64}"),
    sure("heroku-key", &["HRKU-"], r"\bHRKU-[A-Za-z0-9_-]{36}"),
    sure("fly-token", &["fo1_"], r"\bfo1_[A-Za-z0-9_-]{43}"),
    sure("vault-token", &["hvs.", "hvb."], r"\bhv[sb]\.[A-Za-z0-9_-]{24}"),
    sure("terraform-token", &[".atlasv1."], r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60}"),
    sure("databricks-token", &["dapi"], r"\bdapi[0-9a-f]{32}"),
    sure("newrelic-key", &["NRAK-"], r"\bNRAK-[A-Z0-9]{27}"),
    sure(
        "grafana-token",
        &["glc_", "glsa_"],
        r"\bgl(?:c_[A-Za-z0-9+/]{32,}|sa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8})",
    ),
    sure(
        "shopify-token",
        &["shpat_", "shpca_", "shppa_", "shpss_"],
        r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
    ),
    sure("square-token", &["sq0"], r"\bsq0(?:atp|csp)-[A-Za-z0-9_-]{22}"),
    sure("atlassian-token", &["ATATT3"], r"\bATATT3[A-Za-z0-9_=-]{60}"),
    sure("linear-key", &["lin_api_"], r"\blin_api_[A-Za-z0-9]{40}"),
    sure("notion-token", &["ntn_"], r"\bntn_[A-Za-z0-9]{40}"),
    sure("postman-key", &["PMAK-"], r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    sure("figma-token", &["figd_"], r"\bfigd_[A-Za-z0-9_-]{40}"),
    sure("doppler-token", &["dp."], r"\bdp\.(?:pt|st|ct)\.[A-Za-z0-9]{40}"),
    sure("supabase-token", &["sbp_"], r"\bsbp_[a-f0-9]{40}"),
    sure("planetscale-token", &["pscale_"], r"\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,}"),
    sure("age-key", &["AGE-SECRET-KEY-1"], r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}"),
    sure(
        PRIVATE_KEY,
        &["PRIVATE KEY"],
        r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----\s*(?:\\n)?[A-Za-z0-9+/:=]",
    ),
    // The rest of one whose beginning is outside of the window.
    sure(
        PRIVATE_KEY_END,
        &["PRIVATE KEY"],
        r"[A-Za-z0-9+/=]{4}(?:\s|\\n|[\x22',+]){0,16}-----END (?:[A-Z]+ ){0,3}PRIVATE KEY",
    ),
    sure("jwt", &[".eyJ"], r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20}"),
    Format {
        name: CONNECTION_STRING,
        marks: &[
            "postgres://",
            "postgresql://",
            "mysql://",
            "mariadb://",
            "mongodb://",
            "mongodb+srv://",
            "redis://",
            "rediss://",
            "amqp://",
            "amqps://",
            "mssql://",
            "ftp://",
            "http://",
            "https://",
        ],
        place: Place::Behind,
        pattern: r#"^[^\s:@/"'<>{}$]{1,64}:(?P<value>[^\s@/"'<>]{6,128})@[A-Za-z0-9.-]"#,
        check: Check::NotAPlaceholder,
    },
    Format {
        name: "discord-token",
        marks: &["."],
        place: Place::Behind,
        pattern: r"^[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}",
        check: Check::BehindAnId,
    },
    Format {
        name: GENERIC_SECRET,
        marks: &[
            "apikey",
            "api_key",
            "api-key",
            "secret",
            "token",
            "passwd",
            "password",
            "credential",
            "auth",
        ],
        place: Place::Behind,
        pattern: r#"(?i)^[a-z0-9_]{0,24}["']?\s{0,4}(?:=>|:=|[:=])\s{0,4}(?:str\()?["'`](?P<value>[A-Za-z0-9+/=_.~!@#$%^&*-]{16,128})["'`]"#,
        check: Check::Random,
    },
];
