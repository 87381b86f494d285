/* tessera.h - run GGUF language models: the public interface.
 *
 * An ENGINE is a loaded model: the mapped file, the packed weights, the
 * vocabulary, a pool of threads. It is immutable once open.
 *
 * A SESSION is one timeline of tokens on an engine: its KV cache, its scratch
 * memory and the logits of its last step. Decoding allocates nothing.
 *
 * A SAMPLER turns logits into a token.
 *
 * Threads. An engine may be read from any number of threads (tokenize, pieces,
 * info, grammars). All sessions of an engine share its compute pool: ts_session_eval takes
 * it exclusively, so evaluations of two sessions follow one another. One session
 * or sampler belongs to one thread at a time. ts_session_cancel alone may be called
 * from any thread and from a signal handler.
 *
 * Errors. Whatever can fail returns ts_status and fills *err (which may be NULL) with
 * one sentence that names what, where and the offending value. Outputs are
 * written only on TS_OK. The library never prints and never exits.
 *
 * Ownership. X_open gives an object that X_close frees; X_close(NULL) is fine.
 * Close sessions before their engine. Pointers obtained from an object live as
 * long as it does unless said otherwise.
 *
 * ABI. Structures passed in are created by their *_init function and may grow at
 * their end in a minor version: `size` tells the library which one the caller
 * knows. Within one major version nothing is removed or reordered; the shared
 * library's soname is the major version. Before 1.0 a minor version may break. */
#ifndef TESSERA_H
#define TESSERA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TS_VERSION_MAJOR 0
#define TS_VERSION_MINOR 1
#define TS_VERSION_PATCH 0

#if defined(__GNUC__)
#define TS_API __attribute__((visibility("default")))
#else
#define TS_API
#endif

/* "0.1.0" of the library that is linked, which may differ from the header's. */
TS_API const char *ts_version(void);

/* --- status ------------------------------------------------------------- */

typedef enum ts_status {
    TS_OK = 0,
    TS_BAD_FILE,    /* a model file is malformed or not what it should be    */
    TS_BAD_ARG,     /* an argument or option is out of range                 */
    TS_UNSUPPORTED, /* well-formed, but this build can't do it               */
    TS_NO_MEMORY,   /* more memory asked for than there is                   */
    TS_IO,          /* the operating system refused: open, read, write, map  */
    TS_FULL,        /* the context has no room for these tokens              */
    TS_CANCELLED,   /* ts_session_cancel was called                          */
    TS_NOT_FINITE,  /* check_finite: a step made a NaN or an infinity        */
} ts_status;

/* Room for one sentence. Zero-initialise; never owns memory. */
typedef struct ts_error {
    ts_status code;
    char msg[500]; /* NUL-terminated, no trailing newline */
} ts_error;

/* --- log ---------------------------------------------------------------- */

typedef enum ts_log_level { TS_LOG_ERROR, TS_LOG_WARN, TS_LOG_INFO, TS_LOG_DEBUG } ts_log_level;

/* One line, without newline. Called from the thread that called the library. */
typedef void ts_log_fn(void *user, ts_log_level level, const char *line);

/* --- engine ------------------------------------------------------------- */

typedef struct ts_engine ts_engine;

/* Kernel sets, from the plain oracle to the widest. TS_ISA_AUTO takes the best that the CPU, the
 * operating system and the Linux tile permission allow, and logs (TS_LOG_INFO) which that is and
 * why no wider one serves; the environment variable TESSERA_ISA overrides AUTO. */
typedef enum ts_isa { TS_ISA_AUTO = 0, TS_ISA_REF, TS_ISA_AVX2, TS_ISA_AVX512, TS_ISA_AMX } ts_isa;

typedef enum ts_stream_mode { TS_STREAM_AUTO, TS_STREAM_OFF, TS_STREAM_ON } ts_stream_mode;

/* How several GPUs share layers: each has a run of them, or one has all. */
typedef enum ts_split_mode { TS_SPLIT_LAYER = 0, TS_SPLIT_NONE } ts_split_mode;

typedef struct ts_engine_options {
    size_t size; /* sizeof, set by the init function */
    /* Compute threads; 0 = one for each CPU this process may use. Where a virtual machine's host
     * kept some from running, which keeps all waiting, ts_engine_close logs a warning. */
    int n_threads;
    ts_isa isa;       /* widest kernel set to use; one that is missing here is an error */
    int64_t n_ctx;    /* positions a session can hold; 0 = what the model was trained for,
                         at most 4096, and with n_seqs so many times that, at most 4 */
    int64_t n_ubatch; /* tokens computed together in prefill; 0 = 512           */
    int64_t n_logits; /* rows of logits one eval can return; 0 = 1             */
    bool plan_only;   /* stop after planning: no weight is packed, no eval      */
    bool vocab_only;  /* stop after the tokenizer: no plan, no weights, no eval */
    /* 8-bit activations in micro-batches of 32 tokens or more: faster and less exact. With AMX the
     * weights are rounded to 8 bits too (docs/BENCHMARKS.md has what either gains and costs). */
    bool int8_prefill;
    ts_log_fn *log; /* may be NULL                                           */
    void *log_user;
    /* Load progress from 0 to 1; return false to cancel. May be NULL. */
    bool (*progress)(void *user, double done);
    void *progress_user;
    bool no_amx; /* TS_ISA_AUTO without tiles; not together with TS_ISA_AMX  */
    /* A directory that keeps the packed weights for the next start; NULL or "" = none. It is made
     * if only its last name is missing. What it holds is checked to the last byte before it is
     * used; a file that is stale or damaged is reported to the log and made anew, and one that
     * can't be written is a warning, never an error (docs/CLI.md). */
    const char *pack_cache;
    /* NVIDIA GPUs (docs/CLI.md). The last n_gpu_layers layers go to them, with more than the model
     * has the output matrix too, with TS_GPU_LAYERS_AUTO as many as fit; 0 uses none. A number that
     * doesn't fit is refused (TS_NO_MEMORY). Where no GPU can be used, a line of the log says why
     * and the CPU does everything; one that can't be used beside others is left out, with a line
     * (TS_LOG_WARN) unless `devices` names some; where memory that was free is taken meanwhile,
     * fewer layers go there, with a line too. TS_GPU_LAYERS_DEFAULT, the default, is AUTO but for
     * the first line, which is then TS_LOG_DEBUG instead of TS_LOG_WARN; and 0 with TS_ISA_REF. */
    int64_t n_gpu_layers;
    size_t vram_limit; /* bytes of each GPU that may be taken; 0 = what is free, less a margin */
    /* "PATTERN=DEVICE": weights in whose names the pattern (PCRE2) is found go to the device, CPU,
     * CUDA0, CUDA1 ...; the last that is found counts. One that is found in no name is
     * TS_BAD_ARG, and so is a device that isn't there. */
    const char *const *override_tensors;
    size_t n_override_tensors;
    /* Weights that the CPU keeps, brought to a GPU for micro-batches of many tokens: where that is
     * faster by what was measured after loading, never, or from 32 tokens on. */
    ts_stream_mode stream;
    /* Look for NaN and infinities: every step of every eval is run by itself and all it wrote is
     * read, which is slow. The first that is found ends the eval with TS_NOT_FINITE, whose sentence
     * names the step, its weight, the layer, the device and the element. */
    bool check_finite;
    /* "CUDA1,CUDA0": these GPUs alone may be used, in this order; "none": no GPU; NULL or "": all.
     * One that isn't there is TS_BAD_ARG. */
    const char *devices;
    /* How layers are shared among GPUs: by these shares, in the order of the devices (the rest get
     * none); without any, in proportion to the memory that may be taken. */
    const float *tensor_split;
    size_t n_tensor_split;
    ts_split_mode split_mode;
    /* The number, from 0, of one of the GPUs that may be used: with TS_SPLIT_NONE the only one,
     * with TS_SPLIT_LAYER the one that gets the output matrix, if any does. Below 0, the default:
     * the first one, or the one that has the last layer. */
    int main_gpu;
    bool no_kv_offload; /* K, V and attention of all layers stay with the CPU */
    /* Weights of experts (ffn_up_exps, ffn_gate_exps, ffn_down_exps) of the first so many layers
     * stay with the CPU, unless override_tensors says otherwise; INT64_MAX: of all; 0: as their
     * layer. TS_BAD_ARG where there are none. */
    int64_t n_cpu_moe;
    /* With plan_only: GPUs to plan for instead of those that are there, CUDA0, CUDA1 ... Each is
     * "NAME,MEMORY,BANDWIDTH,LINK" or "NAME,MEMORY,BANDWIDTH,LINK,PEAK", as in
     * "H100,78G,3000GB/s,50GB/s,900TFLOPS" (docs/CLI.md). */
    const char *const *planned_gpus;
    size_t n_planned_gpus;
    size_t planned_memory; /* with plan_only: bytes of main memory to plan for; 0 = what is free */
    /* Timelines of a session, which share its n_ctx positions in pages; at most 1024. 0: one that
     * has them all, without pages. */
    int32_t n_seqs;
} ts_engine_options;

#define TS_GPU_LAYERS_AUTO    (-1)
#define TS_GPU_LAYERS_DEFAULT (-2)

TS_API void ts_engine_options_init(ts_engine_options *opt);

/* Opens a GGUF file (any shard of a split one finds the rest), checks it, plans and
 * packs it. TS_BAD_FILE, TS_BAD_ARG, TS_UNSUPPORTED, TS_NO_MEMORY, TS_IO, TS_CANCELLED. */
TS_API ts_status ts_engine_open(ts_engine **out, const char *path, const ts_engine_options *opt,
                                ts_error *err);
TS_API void ts_engine_close(ts_engine *e);

typedef struct ts_engine_info {
    char desc[96];        /* "llama 135M Q4_1"                        */
    const char *arch;     /* general.architecture                     */
    const char *isa;      /* kernel sets in use: "ref", "avx2", ...   */
    int64_t n_params;     /* elements of all tensors                  */
    uint64_t model_bytes; /* bytes of all tensors in the file         */
    int64_t n_layer, n_embd, n_vocab;
    int64_t n_ctx_train; /* what the model was trained for           */
    int64_t n_ctx;       /* what sessions hold                       */
    int64_t n_ctx_seq;   /* what one timeline can have of it         */
    int64_t n_ubatch;
    int n_threads;
    double load_seconds;
    bool int8_prefill; /* as asked for in the options             */
    /* What the plan decided: layers on GPUs, more than n_layer with the output matrix; and the GPUs
     * that have a part of the model, "CUDA0 NVIDIA L4, CUDA1 NVIDIA L4", "" without any. */
    int64_t n_gpu_layers;
    char gpus[256];
} ts_engine_info;

TS_API void ts_engine_get_info(const ts_engine *e, ts_engine_info *info);

/* The plan as text for people or as JSON (docs/CLI.md describes it). The string is
 * allocated: free it with ts_free. */
TS_API ts_status ts_engine_plan(const ts_engine *e, bool json, char **out, ts_error *err);

TS_API void ts_free(void *p);

typedef struct ts_gpu {
    char name[16];  /* "CUDA0", as options name it */
    char desc[128]; /* "NVIDIA H100 80GB HBM3"     */
    size_t free_bytes, total_bytes;
} ts_gpu;

/* The GPUs that engines can use: *n of them, the first `max` into out. TS_UNSUPPORTED where there
 * is none, with a sentence that says why. */
TS_API ts_status ts_list_gpus(ts_gpu *out, size_t max, size_t *n, ts_error *err);

/* --- tokens ------------------------------------------------------------- */

typedef int32_t ts_token;

enum {
    TS_TOK_ADD_SPECIAL = 1,   /* add BOS / EOS where the model asks for them         */
    TS_TOK_PARSE_SPECIAL = 2, /* "<|im_start|>" in the text becomes its control token */
};

/* UTF-8 (invalid bytes are kept or replaced as the model's tokenizer does) to ids.
 * *out is allocated (ts_free), *n_out >= 0. Linear in n for any input. */
TS_API ts_status ts_tokenize(const ts_engine *e, const char *text, size_t n, unsigned flags,
                             ts_token **out, size_t *n_out, ts_error *err);

/* The bytes of one token: returns their number and points *piece at them (not
 * NUL-terminated, may be part of a UTF-8 character). Control tokens are empty unless
 * `special`. An id outside the vocabulary gives 0 bytes. */
TS_API size_t ts_token_piece(const ts_engine *e, ts_token id, bool special, const char **piece);

/* Ids to bytes, as tokenize would have read them. Allocated, NUL-terminated, *n_out
 * without the NUL. TS_BAD_ARG for an id outside the vocabulary. */
TS_API ts_status ts_detokenize(const ts_engine *e, const ts_token *ids, size_t n, bool special,
                               char **out, size_t *n_out, ts_error *err);

/* True for every token that ends a generation (EOS, EOT, <|im_end|>, ...). */
TS_API bool ts_token_is_eog(const ts_engine *e, ts_token id);

/* --- chat --------------------------------------------------------------- */

/* A chat template: the Jinja program in a model's file that writes messages as the model was
 * trained to read them. Immutable once open: any number of threads may apply it. It runs in a
 * sandbox with limits on steps, depth, memory and output. */
typedef struct ts_chat ts_chat;

/* template_text: Jinja, or "chatml" for the template of that name; NULL takes the model's own
 * (tokenizer.chat_template; for requests with tools tokenizer.chat_template.tool_use, if there is
 * one). Close it before the engine. TS_UNSUPPORTED: the model has none. TS_BAD_FILE, TS_BAD_ARG: it
 * can't be read, with the line; TS_NO_MEMORY. */
TS_API ts_status ts_chat_open(ts_chat **out, const ts_engine *e, const char *template_text,
                              ts_error *err);
TS_API void ts_chat_close(ts_chat *c);

/* Both allocated: ts_chat_prompt_free. */
typedef struct ts_chat_prompt {
    char *text; /* [n_text] and a NUL: what the template made */
    size_t n_text;
    ts_token *ids; /* [n_ids] its tokens, BOS included where the model wants it */
    size_t n_ids;
} ts_chat_prompt;

/* json[n] is an object: "messages" as in OpenAI's API (role; content, a text or parts of type text;
 * tool_calls; reasoning_content), "tools" in the same form, "add_generation_prompt" (true unless
 * given); every other member is a variable of the template ("enable_thinking"). Text of messages
 * never becomes a control token, only what the template itself writes does. TS_BAD_ARG: no such
 * object, or what the template refuses, in its own words; TS_NO_MEMORY. */
TS_API ts_status ts_chat_apply(const ts_chat *c, const char *json, size_t n, ts_chat_prompt *out,
                               ts_error *err);
TS_API void ts_chat_prompt_free(ts_chat_prompt *p);

/* --- session ------------------------------------------------------------ */

typedef struct ts_session ts_session;

TS_API ts_status ts_session_open(ts_session **out, ts_engine *e, ts_error *err);
TS_API void ts_session_close(ts_session *s);

/* Appends tokens[n] to the timeline and computes the logits of the last
 * `n_logits` of them (1 <= n_logits <= min(n, options.n_logits)).
 * TS_FULL when pos + n > n_ctx (nothing is evaluated), TS_BAD_ARG for an id outside the vocabulary
 * or n < 1. TS_CANCELLED, TS_IO where a GPU failed, and TS_NOT_FINITE: the timeline then ends
 * at a micro-batch boundary (ts_session_pos). */
TS_API ts_status ts_session_eval(ts_session *s, const ts_token *tokens, size_t n, size_t n_logits,
                                 ts_error *err);

/* Row i (0 = first of the n_logits asked for) of the last eval: [n_vocab] floats. Valid until the
 * next eval; the sampler may modify it. NULL if there is no such row. */
TS_API float *ts_session_logits(ts_session *s, size_t i);

TS_API int64_t ts_session_pos(const ts_session *s); /* tokens in the timeline */

/* Forgets every token from position pos on; 0 <= pos <= ts_session_pos, else TS_BAD_ARG. In a
 * session with options.n_seqs what precedes pos in its page is computed again if the cache keeps
 * the page: errors are then also those of ts_session_eval_spans, behind which the timeline ends
 * where that page begins. */
TS_API ts_status ts_session_rewind(ts_session *s, int64_t pos, ts_error *err);

/* Ends a running eval at its next micro-batch. Async-signal-safe. */
TS_API void ts_session_cancel(ts_session *s);

/* --- many timelines in a session ---------------------------------------- */

/* A session has options.n_seqs timelines over one KV cache of n_ctx positions, which they share in
 * pages of TS_KV_PAGE. The functions above are of timeline 0. Whole pages stay in the cache behind
 * a timeline that ends or is rewound, until their room is wanted: another one that begins with the
 * same tokens has them at once. */
#define TS_KV_PAGE 64

/* Tokens appended to one timeline. */
typedef struct ts_span {
    int32_t seq;            /* 0 .. n_seqs - 1, each at most once in an eval     */
    const ts_token *tokens; /* [n], n >= 1                                       */
    size_t n;
    size_t n_logits; /* rows of logits wanted, of its last tokens: 0 .. n */
} ts_span;

/* Computes the spans together, as one micro-batch: for a few tokens each, several cost little more
 * than one. All tokens together are at most n_ubatch, all rows of logits at most the engine's
 * n_logits; the rows stand in the spans' order. TS_FULL: the cache has no room for all of them,
 * even without what no timeline holds. Other errors as in ts_session_eval. After any error every
 * timeline is as before. */
TS_API ts_status ts_session_eval_spans(ts_session *s, const ts_span *spans, size_t n_spans,
                                       ts_error *err);

TS_API int64_t ts_session_seq_pos(const ts_session *s, int32_t seq); /* -1: no such timeline */
TS_API ts_status ts_session_seq_rewind(ts_session *s, int32_t seq, int64_t pos, ts_error *err);

/* Empties the timeline and gives it what the cache has of the beginning of tokens[n]: *found
 * positions, whole pages, fewer than n. The rest is for the caller to eval. */
TS_API ts_status ts_session_seq_begin(ts_session *s, int32_t seq, const ts_token *tokens, size_t n,
                                      int64_t *found, ts_error *err);

typedef struct ts_kv_info {
    int64_t n_pages;  /* of TS_KV_PAGE positions                                    */
    int64_t n_held;   /* that some timeline holds                                   */
    int64_t n_cached; /* that none holds, kept for whoever begins with their tokens */
    int64_t n_free;   /* that hold nothing                                          */
} ts_kv_info;

TS_API void ts_session_kv_info(const ts_session *s, ts_kv_info *out);

/* Writes the pages that the cache holds, with their tokens, to a file, and brings them back, in
 * this process or another one, into a session that holds none: *pages of them, as many as there is
 * room for. The file is bound to the model, the layout of the cache and this version's format, and
 * checked to its last byte: TS_BAD_FILE, and nothing is restored, where it isn't what was written.
 * TS_IO: it can't be read or written (a save that fails leaves a file that was there as it was);
 * TS_NO_MEMORY. */
TS_API ts_status ts_session_kv_save(ts_session *s, const char *path, int64_t *pages, ts_error *err);
TS_API ts_status ts_session_kv_restore(ts_session *s, const char *path, int64_t *pages,
                                       ts_error *err);

/* What the model makes of the tokens that row i of logits belongs to, in the last micro-batch of
 * the last eval: its last hidden state behind the output norm, out[n_embd]. TS_BAD_ARG: there is no
 * such row; TS_IO where a GPU failed. */
TS_API ts_status ts_session_embedding(ts_session *s, size_t i, float *out, ts_error *err);

/* Counts and times the work of every eval from here on (about 1 % of a small model's speed), from
 * zero. */
TS_API void ts_session_set_stats(ts_session *s, bool on);

/* What was done since: for each kernel set weights, bytes, calls, FLOPs, seconds and both speeds,
 * for each other operation calls and seconds, and the share of all matrix FLOPs done on tiles. Text
 * or JSON (docs/CLI.md), allocated: ts_free. */
TS_API ts_status ts_session_stats(const ts_session *s, bool json, char **out, ts_error *err);

/* --- sampling ----------------------------------------------------------- */

typedef struct ts_sampler ts_sampler;

typedef struct ts_sampler_options {
    size_t size;          /* sizeof, set by the init function                  */
    float temp;           /* 0.8; <= 0 takes the best token (greedy)            */
    int32_t top_k;        /* 40; <= 0 keeps all                                */
    float top_p;          /* 0.95; 1 keeps all (nucleus, arXiv:1904.09751)      */
    float min_p;          /* 0.05; 0 keeps all (arXiv:2407.01082)               */
    float repeat_penalty; /* 1 = off (CTRL, arXiv:1909.05858)                   */
    float frequency_penalty, presence_penalty; /* 0 = off                       */
    int32_t repeat_last_n; /* 64 tokens looked back on; 0 = off, -1 = all        */
    uint64_t seed;         /* the same seed gives the same tokens               */
} ts_sampler_options;

TS_API void ts_sampler_options_init(ts_sampler_options *opt);
TS_API ts_status ts_sampler_open(ts_sampler **out, const ts_sampler_options *opt, ts_error *err);
TS_API void ts_sampler_close(ts_sampler *s);

/* Tells the sampler of a token of the timeline (prompt or sampled), for the penalties and the
 * grammar. */
TS_API void ts_sampler_accept(ts_sampler *s, ts_token id);

/* Chooses from logits[n_vocab], which it may modify. Ties go to the lower id. Penalties, top-k,
 * top-p, min-p, temperature, in this order (llama.cpp's). Under a grammar only tokens that it
 * allows are there to choose from. TS_NO_MEMORY; under a grammar TS_BAD_ARG after a token that it
 * doesn't allow, TS_UNSUPPORTED where the vocabulary has none that it does or the grammar is too
 * ambiguous. */
TS_API ts_status ts_sampler_sample(ts_sampler *s, float *logits, size_t n_vocab, ts_token *out,
                                   ts_error *err);

/* --- grammars ------------------------------------------------------------- */

/* A grammar says which texts may be made. It is immutable and belongs to its engine's vocabulary:
 * any number of samplers may use it at once. Close it after them and before the engine. */
typedef struct ts_grammar ts_grammar;

/* GBNF, llama.cpp's notation (docs/CLI.md), UTF-8 [n]; the text is a whole match of the rule
 * `root`. TS_BAD_ARG with a sentence that names line and column: what isn't GBNF, rules that are
 * missing, defined twice or begin with themselves, and what is beyond a limit. TS_UNSUPPORTED: a
 * text could never end. TS_NO_MEMORY. */
TS_API ts_status ts_grammar_open(ts_grammar **out, ts_engine *e, const char *gbnf, size_t n,
                                 ts_error *err);

/* The same from a JSON schema [n]: the text is JSON that the schema accepts (docs/CLI.md lists what
 * a schema may have). NULL: any JSON object. TS_BAD_ARG: not JSON, not a schema, or one that
 * accepts nothing; TS_UNSUPPORTED: a keyword that isn't supported, named; TS_NO_MEMORY. */
TS_API ts_status ts_grammar_open_schema(ts_grammar **out, ts_engine *e, const char *schema,
                                        size_t n, ts_error *err);
TS_API void ts_grammar_close(ts_grammar *g);

/* The GBNF that ts_grammar_open_schema makes of a schema. Allocated, NUL-terminated: ts_free. */
TS_API ts_status ts_schema_to_gbnf(const char *schema, size_t n, char **out, ts_error *err);

/* Puts a sampler under a grammar, at its beginning: what is accepted from here on (not the prompt
 * before) is the text. NULL ends it. What a sampler remembers is some MiB, for a very ambiguous
 * grammar up to 1 GiB. TS_NO_MEMORY; TS_UNSUPPORTED: there are too many ways to begin a text. */
TS_API ts_status ts_sampler_set_grammar(ts_sampler *s, const ts_grammar *g, ts_error *err);

typedef enum ts_grammar_state {
    TS_GRAMMAR_NONE,     /* the sampler has no grammar                                       */
    TS_GRAMMAR_OPEN,     /* the text must go on                                              */
    TS_GRAMMAR_COMPLETE, /* it may end here or go on                                         */
    TS_GRAMMAR_ENDED,    /* it is complete: only a token that ends a generation may follow   */
    TS_GRAMMAR_STRAYED,  /* a token was accepted that the grammar doesn't allow: no sampling */
} ts_grammar_state;

TS_API ts_grammar_state ts_sampler_grammar_state(const ts_sampler *s);

#ifdef __cplusplus
}
#endif
#endif
