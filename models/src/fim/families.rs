//! The families, the more specific first: a vocabulary belongs to the first it fits.

use super::Piece::{
    Content, Files, Header, Opening, Path, Prefix, Repository, Suffix, Text, Token,
};
use super::{Family, Order, Piece, Recognise};

/// What a row leaves out.
const PLAIN: Family = Family {
    name: "",
    models: &[],
    recognise: Recognise::ByName,
    psm: &[],
    spm: &[],
    default: Order::Psm,
    raw: &[],
    repository: &[],
    extra: &[],
    opening: &[],
    header: &[],
    stops: &[],
    stop_texts: &[],
    bos: false,
};

const QWEN_PSM: &[Piece] = &[
    Files,
    Header,
    Token("<|fim_prefix|>"),
    Prefix,
    Token("<|fim_suffix|>"),
    Suffix,
    Token("<|fim_middle|>"),
];
const QWEN_HEADER: &[Piece] = &[Token("<|file_sep|>"), Path, Text("\n")];
const QWEN_STOPS: &[&str] = &[
    "<|endoftext|>",
    "<|im_end|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
];

const STARCODER_PSM: &[Piece] = &[
    Files,
    Header,
    Token("<fim_prefix>"),
    Prefix,
    Token("<fim_suffix>"),
    Suffix,
    Token("<fim_middle>"),
];
const STARCODER_SPM: &[Piece] = &[
    Files,
    Header,
    Token("<fim_prefix>"),
    Token("<fim_suffix>"),
    Suffix,
    Token("<fim_middle>"),
    Prefix,
];
const STARCODER_STOPS: &[&str] = &[
    "<|endoftext|>",
    "<fim_prefix>",
    "<fim_middle>",
    "<fim_suffix>",
    "<fim_pad>",
    "<filename>",
    "<file_sep>",
    "<reponame>",
    "<repo_name>",
];
/// StarCoder 1's way to name a file, which its successors took over.
const FILENAME_HEADER: &[Piece] = &[Token("<filename>"), Path, Text("\n")];
const FILENAME_EXTRA: &[Piece] = &[Token("<filename>"), Path, Text("\n"), Content];

/// All known families.
pub static FAMILIES: &[Family] = &[
    // the model that comes with weir: the vocabulary has Qwen's names, the training its own order
    Family {
        name: "weir",
        psm: &[
            Header,
            Token("<|fim_prefix|>"),
            Prefix,
            Token("<|fim_suffix|>"),
            Suffix,
            Token("<|fim_middle|>"),
        ],
        spm: &[
            Header,
            Token("<|fim_prefix|>"),
            Token("<|fim_suffix|>"),
            Suffix,
            Token("<|fim_middle|>"),
            Prefix,
        ],
        default: Order::Spm,
        header: QWEN_HEADER,
        stops: QWEN_STOPS,
        ..PLAIN
    },
    Family {
        name: "codestral",
        models: &["codestral"],
        recognise: Recognise::ByTokens(&[]),
        // files and header are text in front of the prefix
        spm: &[Token("[SUFFIX]"), Suffix, Token("[PREFIX]"), Files, Header, Prefix],
        default: Order::Spm,
        extra: &[Text("+++++ "), Path, Text("\n"), Content, Text("\n\n")],
        header: &[Text("+++++ "), Path, Text("\n")],
        stops: &["</s>", "[PREFIX]", "[SUFFIX]", "[MIDDLE]"],
        stop_texts: &["\n+++++ "],
        bos: true,
        ..PLAIN
    },
    Family {
        name: "seed-coder",
        models: &["seed-coder"],
        recognise: Recognise::ByTokens(&[]),
        spm: &[
            Token("<[fim-suffix]>"),
            Suffix,
            Token("<[fim-prefix]>"),
            Prefix,
            Token("<[fim-middle]>"),
        ],
        default: Order::Spm,
        stops: &["<[end▁of▁sentence]>", "<[fim-suffix]>", "<[fim-prefix]>", "<[fim-middle]>"],
        ..PLAIN
    },
    Family {
        name: "codellama",
        models: &["codellama", "code-llama"],
        recognise: Recognise::ByTokens(&["▁<EOT>"]),
        psm: &[Token("▁<PRE>"), Prefix, Token("▁<SUF>"), Suffix, Token("▁<MID>")],
        spm: &[Token("▁<PRE>"), Token("▁<SUF>"), Suffix, Token("▁<MID>"), Prefix],
        raw: &[Text("<PRE> "), Prefix, Text(" <SUF>"), Suffix, Text(" <MID>")],
        stops: &["▁<EOT>", "</s>", "▁<PRE>", "▁<SUF>", "▁<MID>"],
        bos: true,
        ..PLAIN
    },
    Family {
        name: "deepseek",
        models: &["deepseek"],
        recognise: Recognise::ByTokens(&[]),
        psm: &[
            Files,
            Header,
            Token("<｜fim▁begin｜>"),
            Prefix,
            Token("<｜fim▁hole｜>"),
            Suffix,
            Token("<｜fim▁end｜>"),
        ],
        extra: &[Text("#"), Path, Text("\n"), Content],
        header: &[Text("#"), Path, Text("\n")],
        stops: &[
            "<｜end▁of▁sentence｜>",
            "<|EOT|>",
            "<｜fim▁begin｜>",
            "<｜fim▁hole｜>",
            "<｜fim▁end｜>",
        ],
        bos: true,
        ..PLAIN
    },
    Family {
        name: "codegemma",
        models: &["codegemma"],
        recognise: Recognise::ByTokens(&[]),
        psm: &[
            Files,
            Header,
            Token("<|fim_prefix|>"),
            Prefix,
            Token("<|fim_suffix|>"),
            Suffix,
            Token("<|fim_middle|>"),
        ],
        extra: &[Path, Text("\n"), Content, Token("<|file_separator|>")],
        header: &[Path, Text("\n")],
        stops: &[
            "<eos>",
            "<|file_separator|>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
        ],
        bos: true,
        ..PLAIN
    },
    Family {
        name: "granite4",
        models: &["granite-4"],
        recognise: Recognise::ByTokens(&[]),
        psm: QWEN_PSM,
        repository: &[Token("<|reponame|>"), Repository, Text("\n")],
        extra: &[Token("<|filename|>"), Path, Text("\n"), Content],
        header: &[Token("<|filename|>"), Path, Text("\n")],
        stops: &[
            "<|end_of_text|>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|fim_pad|>",
            "<|filename|>",
            "<|reponame|>",
        ],
        ..PLAIN
    },
    Family {
        name: "qwen",
        models: &["qwen2.5", "qwen3-coder", "qwen2.5-coder"],
        recognise: Recognise::ByTokens(&[]),
        psm: QWEN_PSM,
        repository: &[Token("<|repo_name|>"), Repository, Text("\n")],
        extra: &[Token("<|file_sep|>"), Path, Text("\n"), Content],
        header: QWEN_HEADER,
        stops: QWEN_STOPS,
        ..PLAIN
    },
    Family {
        name: "glm",
        models: &["glm-4", "codegeex4"],
        recognise: Recognise::ByTokens(&[]),
        spm: &[
            Token("<|code_suffix|>"),
            Suffix,
            Token("<|code_prefix|>"),
            Prefix,
            Token("<|code_middle|>"),
        ],
        default: Order::Spm,
        stops: &[
            "<|user|>",
            "<|endoftext|>",
            "<|code_prefix|>",
            "<|code_middle|>",
            "<|code_suffix|>",
        ],
        ..PLAIN
    },
    Family {
        name: "falcon",
        models: &["falcon-h1"],
        recognise: Recognise::ByTokens(&[]),
        psm: &[Token("<|prefix|>"), Prefix, Token("<|suffix|>"), Suffix, Token("<|middle|>")],
        stops: &["<|endoftext|>", "<|prefix|>", "<|suffix|>", "<|middle|>"],
        ..PLAIN
    },
    Family {
        name: "santacoder",
        models: &["santacoder"],
        recognise: Recognise::ByTokens(&[]),
        psm: &[Token("<fim-prefix>"), Prefix, Token("<fim-suffix>"), Suffix, Token("<fim-middle>")],
        stops: &["<|endoftext|>", "<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<fim-pad>"],
        ..PLAIN
    },
    // from here on all write <fim_prefix>: other tokens, the config or the name tell them apart
    Family {
        name: "starcoder2",
        models: &["starcoder2"],
        recognise: Recognise::ByTokens(&["<gh_stars>"]),
        // the path is inside the prefix
        psm: &[
            Files,
            Opening,
            Token("<fim_prefix>"),
            Header,
            Prefix,
            Token("<fim_suffix>"),
            Suffix,
            Token("<fim_middle>"),
        ],
        spm: &[
            Files,
            Opening,
            Token("<fim_prefix>"),
            Token("<fim_suffix>"),
            Suffix,
            Token("<fim_middle>"),
            Header,
            Prefix,
        ],
        repository: &[Token("<repo_name>"), Repository],
        extra: &[Token("<file_sep>"), Path, Text("\n"), Content],
        opening: &[Token("<file_sep>")],
        header: &[Path, Text("\n")],
        stops: STARCODER_STOPS,
        ..PLAIN
    },
    Family {
        name: "codeqwen1.5",
        models: &["codeqwen"],
        recognise: Recognise::ByTokens(&[]),
        psm: STARCODER_PSM,
        repository: &[Token("<reponame>"), Repository],
        extra: &[Token("<file_sep>"), Path, Text("\n"), Content],
        header: &[Token("<file_sep>"), Path, Text("\n")],
        stops: STARCODER_STOPS,
        ..PLAIN
    },
    Family {
        name: "mellum",
        models: &["mellum"],
        recognise: Recognise::ByConfig {
            tokens: &[],
            architecture: "LlamaForCausalLM",
            attention_bias: false,
        },
        spm: &[
            Files,
            Header,
            Token("<fim_suffix>"),
            Suffix,
            Token("<fim_prefix>"),
            Prefix,
            Token("<fim_middle>"),
        ],
        default: Order::Spm,
        repository: &[Token("<reponame>"), Repository],
        extra: FILENAME_EXTRA,
        header: FILENAME_HEADER,
        stops: STARCODER_STOPS,
        ..PLAIN
    },
    Family {
        name: "granite",
        models: &["granite"],
        recognise: Recognise::ByConfig {
            tokens: &[],
            architecture: "LlamaForCausalLM",
            attention_bias: true,
        },
        psm: STARCODER_PSM,
        repository: &[Token("<reponame>"), Repository],
        extra: FILENAME_EXTRA,
        header: FILENAME_HEADER,
        stops: STARCODER_STOPS,
        ..PLAIN
    },
    // has the tokens in its vocabulary, but its authors say that it was not trained on them
    Family { name: "yi-coder", models: &["yi-coder"], ..PLAIN },
    Family {
        name: "starcoder",
        models: &["starcoder", "tiny-starcoder", "starcoderbase"],
        recognise: Recognise::ByTokens(&["<gh_stars>"]),
        psm: STARCODER_PSM,
        spm: STARCODER_SPM,
        repository: &[Token("<reponame>"), Repository],
        extra: FILENAME_EXTRA,
        header: FILENAME_HEADER,
        stops: STARCODER_STOPS,
        ..PLAIN
    },
    // Refact, StableCode and whoever else took StarCoder's three tokens and nothing more
    Family {
        name: "stable-code",
        models: &["stable-code", "stablecode", "refact"],
        recognise: Recognise::ByTokens(&[]),
        psm: &[Token("<fim_prefix>"), Prefix, Token("<fim_suffix>"), Suffix, Token("<fim_middle>")],
        stops: STARCODER_STOPS,
        ..PLAIN
    },
];
