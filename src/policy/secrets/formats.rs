//! What keys look like: the prefixes that providers give theirs, so that they can be found.

/// What must hold of a match's group `value` beside the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    None,
    /// It looks drawn.
    Random,
    NotAPlaceholder,
}

pub(super) struct Format {
    /// Told in logs, metrics and headers: letters, digits and hyphens.
    pub(super) name: &'static str,
    /// Of bytes, without Unicode classes.
    pub(super) pattern: &'static str,
    pub(super) check: Check,
}

const fn sure(name: &'static str, pattern: &'static str) -> Format {
    Format { name, pattern, check: Check::None }
}

pub(super) const FORMATS: &[Format] = &[
    sure("aws-access-key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    sure("aws-bedrock-key", r"\bABSK[A-Za-z0-9+/]{100,}"),
    sure("github-token", r"\bgh[pousr]_[A-Za-z0-9]{36}"),
    sure("github-fine-grained", r"\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    sure("gitlab-token", r"\bgl(?:pat|dt|rt|ptt|ft|soat|cbt)-[A-Za-z0-9_-]{20}"),
    sure("slack-token", r"\bxox[abeoprs]-[A-Za-z0-9-]{20}"),
    sure("slack-app", r"\bxapp-[0-9]-[A-Z0-9]{8,}-[0-9]+-[a-f0-9]{32}"),
    sure(
        "slack-webhook",
        r"hooks\.slack\.com/services/T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20}",
    ),
    sure("stripe-key", r"\b[rs]k_live_[A-Za-z0-9]{24}"),
    sure("stripe-webhook", r"\bwhsec_[A-Za-z0-9]{32}"),
    sure(
        "openai-key",
        r"\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}T3BlbkFJ[A-Za-z0-9_-]{20}",
    ),
    sure("anthropic-key", r"\bsk-ant-[a-z]{3}[0-9]{2}-[A-Za-z0-9_-]{80}"),
    sure("openrouter-key", r"\bsk-or-v1-[0-9a-f]{64}"),
    sure("groq-key", r"\bgsk_[A-Za-z0-9]{52}"),
    sure("nvidia-key", r"\bnvapi-[A-Za-z0-9_-]{60}"),
    sure("replicate-token", r"\br8_[A-Za-z0-9]{37}"),
    sure("perplexity-key", r"\bpplx-[A-Za-z0-9]{48}"),
    sure("xai-key", r"\bxai-[A-Za-z0-9]{80}"),
    sure("huggingface-token", r"\bhf_[A-Za-z]{34}"),
    sure("google-api-key", r"\bAIza[0-9A-Za-z_-]{35}"),
    sure("google-oauth-secret", r"\bGOCSPX-[A-Za-z0-9_-]{28}"),
    sure("google-oauth-token", r"\bya29\.[A-Za-z0-9_-]{30}"),
    sure("azure-storage-key", r"AccountKey=[A-Za-z0-9+/]{86}=="),
    sure("azure-client-secret", r"\b[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31}"),
    sure("azure-sas", r"[?&]sig=[A-Za-z0-9%]{43,}%3D"),
    sure("npm-token", r"\bnpm_[A-Za-z0-9]{36}"),
    sure("pypi-token", r"\bpypi-AgE[A-Za-z0-9_-]{50}"),
    sure("rubygems-key", r"\brubygems_[a-f0-9]{48}"),
    sure("docker-token", r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{27}"),
    sure("sendgrid-key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    sure("mailgun-key", r"\bkey-[0-9a-f]{32}\b"),
    sure("mailchimp-key", r"\b[0-9a-f]{32}-us[0-9]{1,2}\b"),
    sure("twilio-key", r"\bSK[0-9a-f]{32}\b"),
    sure("discord-token", r"\b[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27}"),
    sure("telegram-token", r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    sure("digitalocean-token", r"\bdo[opr]_v1_[a-f0-9]{64}"),
    sure("heroku-key", r"\bHRKU-[A-Za-z0-9_-]{36}"),
    sure("fly-token", r"\bfo1_[A-Za-z0-9_-]{43}"),
    sure("vault-token", r"\bhv[sb]\.[A-Za-z0-9_-]{24}"),
    sure("terraform-token", r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60}"),
    sure("databricks-token", r"\bdapi[0-9a-f]{32}"),
    sure("newrelic-key", r"\bNRAK-[A-Z0-9]{27}"),
    sure("grafana-token", r"\bgl(?:c_[A-Za-z0-9+/]{32}|sa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8})"),
    sure("shopify-token", r"\bshp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    sure("square-token", r"\bsq0(?:atp|csp)-[A-Za-z0-9_-]{22}"),
    sure("atlassian-token", r"\bATATT3[A-Za-z0-9_=-]{60}"),
    sure("linear-key", r"\blin_api_[A-Za-z0-9]{40}"),
    sure("notion-token", r"\bntn_[A-Za-z0-9]{40}"),
    sure("postman-key", r"\bPMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    sure("figma-token", r"\bfigd_[A-Za-z0-9_-]{40}"),
    sure("doppler-token", r"\bdp\.(?:pt|st|ct)\.[A-Za-z0-9]{40}"),
    sure("supabase-token", r"\bsbp_[a-f0-9]{40}"),
    sure("planetscale-token", r"\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32}"),
    sure("age-key", r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}"),
    sure(
        "private-key",
        r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----\s*(?:\\n)?[A-Za-z0-9+/:=]",
    ),
    sure("jwt", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20}"),
    Format {
        name: "connection-string",
        pattern: r#"\b(?:postgres(?:ql)?|mysql|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|mssql|ftp|https?)://[^\s:@/"'<>{}$]{1,64}:(?P<value>[^\s@/"'<>]{6,128})@[A-Za-z0-9.-]+"#,
        check: Check::NotAPlaceholder,
    },
    Format {
        name: "generic-secret",
        pattern: r#"(?i)(?:api_?-?key|secret|token|passw(?:or)?d|credential|auth)[a-z0-9_]{0,24}["']?\s{0,4}(?:=>|:=|[:=])\s{0,4}(?:str\()?["'`](?P<value>[A-Za-z0-9+/=_.~!@#$%^&*-]{16,128})["'`]"#,
        check: Check::Random,
    },
];
