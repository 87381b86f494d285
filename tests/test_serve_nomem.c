/* test_serve_nomem.c - requests when memory runs out: each allocation of ours between a request's
 * first byte and its answer's last fails once, in whatever thread. Each is answered, with 503 or
 * 500 in OpenAI's shape where it couldn't be done, and the server goes on. The linker hands the
 * allocations over (--wrap, CMakeLists.txt). */
#include <arpa/inet.h>
#include <jansson.h>
#include <sys/socket.h>
#include <unistd.h>

#define MODEL "serve_nomem.gguf"
#include "refuse.h"
#include "sched_rig.h"
#include "server/http.h"

static int port;
static char answer[1 << 20];

/* One request on a connection of its own; what comes back until it is closed. The status. */
static int ask(const char *method, const char *path, const char *body)
{
    static char request[4096];
    const struct sockaddr_in a = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0), status = 0;
    REQUIRE(fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) == 0);
    int len = snprintf(request, sizeof request,
                       "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       method, path, strlen(body), body);
    REQUIRE(len > 0 && send(fd, request, (size_t)len, MSG_NOSIGNAL) == len);
    for (ssize_t got;
         n < sizeof answer - 1 && (got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0;)
        n += (size_t)got;
    answer[n] = 0;
    close(fd);
    return sscanf(answer, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

static bool is_error(const char *text)
{
    json_error_t why;
    json_t *v = json_loads(text, JSON_DISABLE_EOF_CHECK, &why), *e = json_object_get(v, "error");
    bool shape = json_is_string(json_object_get(e, "message")) &&
                 json_is_string(json_object_get(e, "type")) && json_object_get(e, "code") &&
                 json_object_get(e, "param");
    json_decref(v);
    return shape;
}

/* The body without what differs from one time to the next: names, numbers. Into out. */
static const char *same_part(char *out)
{
    static const char id[] = "\"id\":\"";
    const char *s = strstr(answer, "\r\n\r\n");
    size_t n = 0;
    REQUIRE(s != NULL);
    for (s += 4; *s;) {
        if (strncmp(s, id, sizeof id - 1) == 0)
            s += sizeof id - 1 + strcspn(s + sizeof id - 1, "\"");
        size_t digits = strspn(s, "0123456789.");
        out[n++] = digits ? '#' : *s;
        s += digits ? digits : 1;
    }
    out[n] = 0;
    return out;
}

static char whole[sizeof answer], now[sizeof answer];

/* What was answered when an allocation was refused. */
static void check_answer(int status, const char *want, long k, const char *path)
{
    const char *body = strstr(answer, "\r\n\r\n"), *event = strstr(answer, "data: {\"error\"");
    bool chunked = strstr(answer, "Transfer-Encoding: chunked") != NULL;
    REQUIRE(body != NULL);
    /* of pieces, where they are cut differs; numbers of the process aren't an answer's */
    if (status == 200 && !chunked && !strstr(path, "/metrics"))
        CHECK_MSG(strcmp(same_part(now), whole) == 0, "%s, allocation %ld: another answer: %.900s",
                  path, k, answer);
    else if (status == 200)
        CHECK_MSG(strstr(answer, want) || (event && is_error(event + 6)),
                  "%s, allocation %ld: an answer without its end: %.900s", path, k, answer);
    else
        CHECK_MSG((status == 503 || status == 500) && is_error(body + 4),
                  "%s, allocation %ld: status %d, %.300s", path, k, status, answer);
}

#define MESSAGES                                                                                   \
    "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", "            \
    "\"content\": [{\"type\": \"text\", \"text\": \"a\"}]}], \"temperature\": 0"
#define TOOLS                                                                                      \
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "        \
    "{\"type\": \"object\", \"properties\": {\"a\": {\"enum\": [1]}}, \"required\": [\"a\"], "     \
    "\"additionalProperties\": false}}}]"

/* Calls as Hermes makes them. */
static const char chat_template[] =
    "{% if tools %}<tools>{{ tools|tojson }}</tools> {\"name\": <function-name>, \"arguments\": "
    "<args-json-object>} within <tool_call></tool_call>{% endif %}{% for m in messages %}{{ "
    "m.role }}: {{ m.content }}\n{% for c in m.tool_calls or [] %}<tool_call>\n{\"name\": \"{{ "
    "c.function.name }}\", \"arguments\": {{ c.function.arguments|tojson }}}\n</tool_call>{% "
    "endfor %}{% endfor %}";

static const struct {
    const char *method, *path, *body, *end; /* end: what a whole answer has */
    long least;                             /* allocations of ours */
} cases[] = {
    {"GET", "/health", "", "ok", 2},
    {"GET", "/v1/models", "", "\"object\":\"list\"", 2},
    {"GET", "/props", "", "build_info", 2},
    {"GET", "/metrics", "", "build_info", 2},
    {"GET", "/plan", "", "}", 2},
    {"POST", "/tokenize", "{\"content\": \"some text\"}", "]}", 8},
    {"POST", "/detokenize", "{\"tokens\": [1, 2, 3]}", "content", 8},
    {"POST", "/v1/embeddings", "{\"input\": [\"a\", \"b\"]}", "total_tokens", 20},
    {"POST", "/v1/completions",
     "{\"prompt\": [\"some text\", [1, 2]], \"max_tokens\": 3, \"temperature\": 0, \"n\": 2, "
     "\"logprobs\": 2, "
     "\"stop\": "
     "[\"never\", \"nor this\"], \"logit_bias\": {\"5\": 1}, \"ignore_eos\": true}",
     "\"timings\":", 40},
    {"POST", "/v1/chat/completions", MESSAGES ", \"max_tokens\": 4, \"ignore_eos\": true}",
     "\"timings\":", 60},
    {"POST", "/v1/chat/completions",
     MESSAGES
     ", \"max_tokens\": 4, \"ignore_eos\": true, \"stream\": true, \"n\": 2, \"logprobs\": "
     "true, \"top_logprobs\": 3, \"stream_options\": {\"include_usage\": true}}",
     "data: [DONE]", 60},
    {"POST", "/v1/chat/completions",
     MESSAGES ", \"max_tokens\": 20, \"response_format\": {\"type\": \"json_object\", \"schema\": "
              "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"boolean\"}}}}}",
     "\"timings\":", 100},
    {"POST", "/v1/chat/completions",
     MESSAGES ", \"max_tokens\": 150, \"tool_choice\": \"required\", \"parallel_tool_calls\": "
              "false, " TOOLS "}",
     "\"finish_reason\":\"tool_calls\"", 100},
    {"POST", "/v1/chat/completions",
     MESSAGES ", \"max_tokens\": 150, \"tool_choice\": \"required\", \"parallel_tool_calls\": "
              "false, \"stream\": true, " TOOLS "}",
     "data: [DONE]", 100},
    {"POST", "/v1/chat/completions", MESSAGES ", \"max_tokens\": 4, " TOOLS "}",
     "\"timings\":", 100},
};

static void test_case(size_t i)
{
    long k = 0;
    CHECK(ask(cases[i].method, cases[i].path, cases[i].body) == 200);
    same_part(whole);
    for (; k < 20000; k += SANITIZED && k >= 40 ? 7 : 1) {
        countdown = k;
        int status = ask(cases[i].method, cases[i].path, cases[i].body);
        bool refused = countdown < 0;
        countdown = -1;
        check_answer(status, cases[i].end, k, cases[i].path);
        if (!refused) {
            CHECK_MSG(status == 200 && strstr(answer, cases[i].end), "%s: %.300s", cases[i].path,
                      answer);
            break;
        }
        if (k % 16 == 0) /* it lives, and for others nothing has changed */
            CHECK(ask("POST", "/tokenize", "{\"content\": \"a\"}") == 200);
    }
    CHECK_MSG(k >= cases[i].least && k < 20000, "%s: %ld allocations", cases[i].path, k);
    printf("%s: %ld allocations\n", cases[i].path, k);
}

/* Whoever comes at the end ends nothing but the server: two threads take no socket away twice. */
static void test_ends(const ts_http_options *ho)
{
    for (int i = 0; i < 2000; i++) {
        ts_http *http = NULL;
        ts_error err = {0};
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        const ts_status st = ts_http_open(&http, ho, &err);
        CHECK_MSG(st == TS_OK, "%s", err.msg);
        REQUIRE(st == TS_OK && sscanf(ts_http_url(http), "http://127.0.0.1:%d", &port) == 1);
        a.sin_port = htons((uint16_t)port);
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        REQUIRE(fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof a) == 0);
        ts_http_close(http);
        close(fd);
    }
}

int main(void)
{
    ts_service *service = NULL;
    ts_http *http = NULL;
    ts_error err = {0};
    ts_sched_info info;
    json_set_alloc_funcs(malloc, free);
    REQUIRE(ts_synth_tiny(MODEL, "llama", "Q8_0", true, NULL) == TS_OK);
    rig r = open_rig(2, 1024, 64, 8);
    ts_service_options so = {
        .engine = r.e, .sched = r.s, .model_path = MODEL, .chat_template = chat_template};
    ts_sampler_options_init(&so.sampling);
    REQUIRE(ts_service_open(&service, &so, &err) == TS_OK);
    ts_http_options ho = {.service = service,
                          .host = "127.0.0.1",
                          .n_threads = 2,
                          .max_body = 1 << 20,
                          .max_connections = 16};
    ts_status st = ts_http_open(&http, &ho, &err);
    CHECK_MSG(st == TS_OK, "%s", err.msg);
    REQUIRE(st == TS_OK && sscanf(ts_http_url(http), "http://127.0.0.1:%d", &port) == 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        test_case(i);
        ts_http_tick(http); /* clears away what was cancelled */
    }
    for (int i = 0; i < 500 && ts_http_in_flight(http) > 0; i++)
        usleep(10000);
    CHECK(ts_http_in_flight(http) == 0);
    ts_http_close(http);
    ho.n_threads = 16;
    test_ends(&ho);
    ts_sched_get_info(r.s, &info);
    CHECK_MSG(info.n_running == 0 && info.n_waiting == 0 && info.kv.n_held == 0,
              "%lld run, %lld wait", (long long)info.n_running, (long long)info.n_waiting);
    ts_service_close(service);
    close_rig(&r);
    unlink(MODEL);
    return check_done("serve_nomem");
}
