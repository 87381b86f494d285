/* serve.c - tessera serve: a model behind OpenAI's API.
 *
 * This file opens what the server is made of, in order, waits for a signal, and closes it again;
 * the server itself is server/. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "command.h"
#include "interrupt.h"
#include "model.h"
#include "sampling.h"
#include "server/http.h"
#include "text.h"

typedef struct serve_opts {
    model_opts model;
    sampling_opts sampling;
    int64_t queue;
    const char *template, *template_file;
    const char *host, *key_file, *log_file, *kv_save;
    int64_t port, max_body, max_connections;
    double timeout_read, timeout_write, drain;
    opt_strs keys, origins, aliases;
    bool no_auth, no_page, no_log, log_prompts;
} serve_opts;

typedef struct serve {
    const serve_opts *o;
    ts_engine *engine;
    ts_sched *sched;
    ts_service *service;
    ts_access_log *log;
    ts_http *http;
    char *template, *key_text; /* read from files */
    char **keys;               /* [n_keys] those of the options and of the file */
    size_t n_keys;
    char *kv_path; /* or NULL */
} serve;

/* --- keys and files ------------------------------------------------------------------------- */

static ts_status add_key(serve *s, char *key, ts_error *err)
{
    char **more = realloc(s->keys, (s->n_keys + 1) * sizeof *more);
    if (!more)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the keys");
    s->keys = more;
    if (!*key)
        return ts_fail(err, TS_BAD_ARG, "an API key is empty");
    s->keys[s->n_keys++] = key;
    return TS_OK;
}

/* A key a line; empty lines and those that begin with # are left out. */
static ts_status read_keys(serve *s, ts_error *err)
{
    const char *path = s->o->key_file;
    size_t n = 0;
    ts_status st = TS_OK;
    for (size_t i = 0; st == TS_OK && i < s->o->keys.n; i++)
        st = add_key(s, s->o->keys.v[i], err);
    if (st || !path)
        return st;
    st = text_read(path, &s->key_text, &n, err);
    if (st == TS_OK && strlen(s->key_text) != n)
        return ts_fail(err, TS_BAD_ARG, "%s: holds a NUL byte", path);
    char *rest = s->key_text, *line;
    while (st == TS_OK && (line = strsep(&rest, "\r\n")))
        if (*line && *line != '#')
            st = add_key(s, line, err);
    if (st == TS_OK && s->n_keys == s->o->keys.n)
        return ts_fail(err, TS_BAD_ARG, "%s: holds no key", path);
    return st;
}

static ts_status read_template(serve *s, ts_error *err)
{
    const serve_opts *o = s->o;
    size_t n = 0;
    if (o->template && o->template_file)
        return ts_fail(err, TS_BAD_ARG, "the chat template is given twice, as text and as a file");
    if (!o->template_file)
        return TS_OK;
    ts_status st = text_read(o->template_file, &s->template, &n, err);
    if (st == TS_OK && strlen(s->template) != n)
        return ts_fail(err, TS_BAD_ARG, "%s: holds a NUL byte", o->template_file);
    return st;
}

/* Sockets beside what else is open. */
static ts_status allow_connections(int64_t n, ts_error *err)
{
    const rlim_t want = (rlim_t)n + 128;
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur == RLIM_INFINITY || l.rlim_cur >= want)
        return TS_OK;
    l.rlim_cur = l.rlim_max == RLIM_INFINITY || l.rlim_max > want ? want : l.rlim_max;
    if (l.rlim_cur < want || setrlimit(RLIMIT_NOFILE, &l))
        return ts_fail(err, TS_BAD_ARG,
                       "--max-connections %lld: this process may open %llu files (ulimit -n)",
                       (long long)n, (unsigned long long)l.rlim_max);
    return TS_OK;
}

/* --- the KV cache, kept ----------------------------------------------------------------------- */

/* DIR/NAME.kv, NAME from the model's file. */
static ts_status name_kv(serve *s, ts_error *err)
{
    const char *base = strrchr(s->o->model.path, '/');
    ts_sb b = {0};
    if (!s->o->kv_save)
        return TS_OK;
    if (mkdir(s->o->kv_save, 0700) && errno != EEXIST)
        return ts_fail(err, TS_IO, "--kv-save %s: cannot be made: %s", s->o->kv_save,
                       strerror(errno));
    ts_sb_printf(&b, "%s/%s.kv", s->o->kv_save, base ? base + 1 : s->o->model.path);
    if (b.failed)
        return ts_fail(err, TS_NO_MEMORY, "no memory for the name of a file");
    s->kv_path = b.s;
    return TS_OK;
}

static void restore_kv(serve *s)
{
    int64_t pages = 0;
    ts_error err = {0};
    if (!s->kv_path || access(s->kv_path, F_OK))
        return;
    if (ts_sched_kv_restore(s->sched, s->kv_path, &pages, &err))
        fprintf(stderr, "warning: %s; the KV cache begins empty\n", err.msg);
    else
        fprintf(stderr, "restored %lld pages of the KV cache from %s\n", (long long)pages,
                s->kv_path);
}

static void save_kv(serve *s)
{
    int64_t pages = 0;
    ts_error err = {0};
    if (!s->kv_path)
        return;
    if (ts_sched_kv_save(s->sched, s->kv_path, &pages, &err))
        fprintf(stderr, "warning: %s; the KV cache isn't kept\n", err.msg);
    else
        fprintf(stderr, "saved %lld pages of the KV cache to %s\n", (long long)pages, s->kv_path);
}

/* --- open ------------------------------------------------------------------------------------- */

static ts_status open_model(serve *s, serve_opts *o, ts_error *err)
{
    ts_session *session = NULL;
    const ts_sched_options so = {.n_queue = o->queue, .log = cli_log, .log_user = &o->model.level};
    ts_status st = model_open(&s->engine, &o->model, o->model.seqs, false, err);
    if (st == TS_OK)
        st = ts_session_open(&session, s->engine, err);
    if (st)
        return st;
    st = ts_sched_open(&s->sched, s->engine, session, &so, err);
    if (st)
        ts_session_close(session);
    return st;
}

static ts_status open_service(serve *s, ts_error *err)
{
    const serve_opts *o = s->o;
    ts_service_options so = {
        .engine = s->engine,
        .sched = s->sched,
        .model_path = o->model.path,
        .names = (const char *const *)o->aliases.v,
        .n_names = o->aliases.n,
        .chat_template = s->template ? s->template : o->template,
        .sampling = sampling_options(&o->sampling),
        .seeded = o->sampling.seed >= 0,
    };
    so.sampling.seed = so.seeded ? (uint64_t)o->sampling.seed : 0;
    return ts_service_open(&s->service, &so, err);
}

static ts_status open_http(serve *s, ts_error *err)
{
    const serve_opts *o = s->o;
    const ts_http_options ho = {
        .service = s->service,
        .host = o->host,
        .port = (int)o->port,
        .n_threads = 4,
        .keys = s->keys,
        .n_keys = s->n_keys,
        .no_auth = o->no_auth,
        .origins = o->origins.v,
        .n_origins = o->origins.n,
        .max_body = (size_t)o->max_body,
        .max_connections = o->max_connections,
        .timeout_read = o->timeout_read,
        .timeout_write = o->timeout_write,
        .page = !o->no_page,
        .log = s->log,
        .log_prompts = o->log_prompts,
    };
    return ts_http_open(&s->http, &ho, err);
}

/* What may be wrong with options is looked at before the model is loaded. */
static ts_status open_all(serve *s, serve_opts *o, ts_error *err)
{
    if (o->no_log && (o->log_file || o->log_prompts))
        return ts_fail(err, TS_BAD_ARG,
                       "--no-log and --log-file or --log-prompts exclude each "
                       "other");
    ts_status st = read_keys(s, err);
    if (st == TS_OK && s->n_keys > 0 && o->no_auth)
        return ts_fail(err, TS_BAD_ARG, "--no-auth and --api-key exclude each other");
    if (st == TS_OK)
        st = ts_http_check_host(o->host, s->n_keys > 0 || o->no_auth, err);
    if (st == TS_OK)
        st = read_template(s, err);
    if (st == TS_OK)
        st = allow_connections(o->max_connections, err);
    if (st == TS_OK)
        st = name_kv(s, err);
    if (st == TS_OK && !o->no_log)
        st = ts_access_log_open(&s->log, o->log_file, err);
    if (st == TS_OK)
        st = open_model(s, o, err);
    if (st)
        return st;
    restore_kv(s);
    st = open_service(s, err);
    return st ? st : open_http(s, err);
}

/* --- the time in between ------------------------------------------------------------------------
 */

static void reopen_log(serve *s)
{
    ts_error err = {0};
    if (ts_access_log_reopen(s->log, &err))
        fprintf(stderr, "warning: %s; the old file is written on\n", err.msg);
}

static void greet(const serve *s)
{
    ts_engine_info i;
    ts_engine_get_info(s->engine, &i);
    fprintf(stderr, "%s, %s, %lld slots that share %lld positions\n", i.desc, i.isa,
            (long long)s->o->model.seqs, (long long)i.n_ctx);
    if (!s->service->chat)
        fprintf(stderr, "warning: %s; /v1/chat/completions is refused\n", s->service->no_chat.msg);
    fprintf(stderr, "listening at %s\n", ts_http_url(s->http));
}

/* A moment: what is slow is looked at, and the log if somebody moved it. */
static void pass(serve *s)
{
    if (!ts_http_tick(s->http))
        usleep(100000);
    if (interrupt_hung_up())
        reopen_log(s);
}

/* Answers that run are finished, if that doesn't take too long. */
static void drain(serve *s)
{
    const double end = cli_now() + s->o->drain;
    fprintf(stderr, "shutting down: no more requests are taken\n");
    ts_http_drain(s->http);
    while (ts_http_in_flight(s->http) > 0 && cli_now() < end)
        pass(s);
    const long long left = (long long)ts_http_in_flight(s->http);
    if (left > 0)
        fprintf(stderr, "%lld requests are ended before their time\n", left);
    ts_http_close(s->http);
    s->http = NULL;
    save_kv(s);
}

static int run(serve *s)
{
    greet(s);
    while (!interrupt_caught())
        pass(s);
    drain(s);
    return CLI_OK;
}

static int serve_with(serve_opts *o)
{
    serve s = {.o = o};
    ts_error err = {0};
    interrupt_catch_server();
    int status = open_all(&s, o, &err) ? model_failed(&err) : run(&s);
    ts_http_close(s.http);
    ts_service_close(s.service);
    ts_sched_close(s.sched);
    ts_engine_close(s.engine);
    ts_access_log_close(s.log);
    free(s.template);
    free(s.key_text);
    free(s.keys);
    free(s.kv_path);
    model_opts_free(&o->model);
    opt_strs_free(&o->keys);
    opt_strs_free(&o->origins);
    opt_strs_free(&o->aliases);
    return status;
}

int cmd_serve(int argc, char **argv)
{
    serve_opts o = {.model = MODEL_OPTS,
                    .queue = 64,
                    .host = "127.0.0.1",
                    .port = 8080,
                    .max_body = 16 << 20,
                    .max_connections = 512,
                    .timeout_read = 60,
                    .timeout_write = 60,
                    .drain = 30};
    o.model.seqs = 4;
    sampling_init(&o.sampling);
    const opt table[] = {
        MODEL_OPTIONS(&o.model),
        PACK_CACHE_OPTION(&o.model),
        CHECK_OPTION(&o.model),
        CTX_OPTION(&o.model, "what the model was trained for, at most 4096, times slots, up to 4"),
        OPT("Model", "-np, --parallel", OPT_INT, &o.model.seqs, "N",
            "generations at once; they share the positions of -c", .min = 1, .max = 1024),
        OPT("Model", "-a, --alias", OPT_LINES, &o.aliases, "NAME",
            "what the model is called; repeated: other names of it", .def = "as its file says"),
        OPT("Model", "--chat-template", OPT_STR, &o.template, "JINJA",
            "the chat template, or chatml for that one", .def = "the model's"),
        OPT("Model", "--chat-template-file", OPT_STR, &o.template_file, "FILE",
            "read the chat template from a file"),
        OPT("Model", "--kv-save", OPT_STR, &o.kv_save, "DIR",
            "keep the KV cache in a file there from one start to the next"),
        GPU_OPTIONS(&o.model),
        OPT("Server", "--host", OPT_STR, &o.host, "HOST", "address to listen at"),
        OPT("Server", "--port", OPT_INT, &o.port, "N", "its port; 0: one that is free", .min = 0,
            .max = 65535),
        OPT("Server", "--api-key", OPT_LINES, &o.keys, "KEY",
            "who has it may ask; repeated: any of them"),
        OPT("Server", "--api-key-file", OPT_STR, &o.key_file, "FILE",
            "read keys from it, one a "
            "line"),
        OPT("Server", "--no-auth", OPT_FLAG, &o.no_auth, NULL,
            "everybody may ask, from other machines too"),
        OPT("Server", "--cors-origin", OPT_LINES, &o.origins, "ORIGIN",
            "whose pages' scripts may ask, as https://example.com; *: all"),
        OPT("Server", "--no-page", OPT_FLAG, &o.no_page, NULL, "no chat page at /"),
        OPT("Server", "--queue", OPT_INT, &o.queue, "N",
            "generations that may wait for a slot; beyond them 429", .min = 0, .max = 65536),
        OPT("Server", "--max-body", OPT_INT, &o.max_body, "BYTES", "largest body of a request",
            .min = 1024, .max = 1 << 30),
        OPT("Server", "--max-connections", OPT_INT, &o.max_connections, "N", "connections at once",
            .min = 4, .max = 65536),
        OPT("Server", "--timeout-read", OPT_FLOAT, &o.timeout_read, "S",
            "seconds within which a request must have come; 0: any time", .min = 0, .max = 86400),
        OPT("Server", "--timeout-write", OPT_FLOAT, &o.timeout_write, "S",
            "seconds within which some of an answer must be read; 0: any time", .min = 0,
            .max = 86400),
        OPT("Server", "--drain", OPT_FLOAT, &o.drain, "S",
            "seconds that running answers get after SIGTERM", .min = 0, .max = 86400),
        OPT("Log", "--log-file", OPT_STR, &o.log_file, "FILE", "append the access log to it",
            .def = "stderr"),
        OPT("Log", "--log-prompts", OPT_FLAG, &o.log_prompts, NULL,
            "bodies of requests too, prompts and all"),
        OPT("Log", "--no-log", OPT_FLAG, &o.no_log, NULL, "no access log"),
        SAMPLING_OPTIONS(&o.sampling),
    };
    const opt_cmd cmd = {
        .name = "serve",
        .purpose = "answer over HTTP, as OpenAI's API does",
        .usage = "-m MODEL [options]",
        .example = "tessera serve -m model.gguf\n"
                   "curl http://127.0.0.1:8080/v1/chat/completions -d '{\"messages\": "
                   "[{\"role\": \"user\", \"content\": \"Hello\"}]}'",
        OPT_TABLE(table),
    };
    int status = opt_start(&cmd, argc, argv);
    if (status == OPT_GO && o.model.list_devices)
        return model_list_devices(&o.model);
    return status == OPT_GO ? serve_with(&o) : status;
}
