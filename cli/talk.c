/* talk.c - a conversation with a model. */
#include "talk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"
#include "grammar/json.h"
#include "interrupt.h"
#include "model.h"
#include "text.h"

static ts_status no_memory(ts_error *err)
{
    return ts_fail(err, TS_NO_MEMORY, "no memory for the conversation");
}

/* --- open and close ---------------------------------------------------------------- */

ts_status talk_open(talk *t, ts_engine *e, const talk_opts *o, ts_error *err)
{
    t->o = o;
    t->engine = e;
    ts_engine_get_info(e, &t->info);
    t->seed = sampling_seed(&o->sampling);
    t->messages = json_array();
    t->cached = ts_calloc((size_t)t->info.n_ctx, sizeof *t->cached);
    if (!t->messages || !t->cached)
        return no_memory(err);
    ts_status st = ts_chat_open(&t->chat, e, o->chat_template, err);
    if (st == TS_UNSUPPORTED)
        return ts_fail(err, st,
                       "this model has no chat template: --chat-template chatml, or another one by "
                       "--chat-template-file");
    return st ? st : model_session(&t->session, e, err);
}

void talk_close(talk *t)
{
    model_session_close(t->session);
    ts_chat_close(t->chat);
    json_decref(t->messages);
    free(t->cached);
    ts_sb_free(&t->held);
    ts_sb_free(&t->said);
    ts_sb_free(&t->thought);
}

/* --- messages ------------------------------------------------------------------------- */

static json_t *message(const char *role, const char *text, size_t n)
{
    return json_pack("{s:s, s:o}", "role", role, "content", json_stringn(text, n));
}

static bool has_system(const talk *t)
{
    const char *role = json_string_value(json_object_get(json_array_get(t->messages, 0), "role"));
    return role && strcmp(role, "system") == 0;
}

bool talk_system(const talk *t, ts_sb *out)
{
    const json_t *content = json_object_get(json_array_get(t->messages, 0), "content"), *part;
    size_t i;
    if (!has_system(t))
        return false;
    ts_sb_add(out, json_string_value(content), json_string_length(content));
    json_array_foreach(content, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        ts_sb_add(out, "\n", i > 0);
        ts_sb_add(out, json_string_value(text), json_string_length(text));
    }
    return true;
}

ts_status talk_set_system(talk *t, const char *text, ts_error *err)
{
    if (text && ts_utf8_valid(text, strlen(text)) < strlen(text))
        return ts_fail(err, TS_BAD_ARG, "the system message is not UTF-8");
    json_t *m = text && *text ? message("system", text, strlen(text)) : NULL;
    if (text && *text && !m)
        return no_memory(err);
    if (has_system(t))
        json_array_remove(t->messages, 0);
    return m && json_array_insert_new(t->messages, 0, m) ? no_memory(err) : TS_OK;
}

void talk_reset(talk *t)
{
    while (json_array_size(t->messages) > (size_t)has_system(t))
        json_array_remove(t->messages, json_array_size(t->messages) - 1);
}

/* The prompt of these messages. */
static ts_status apply(talk *t, json_t *messages, bool answer, ts_chat_prompt *out, ts_error *err)
{
    json_t *request = json_object();
    ts_sb text = {0};
    bool made = request &&
                (!t->o->variables || json_object_update(request, t->o->variables) == 0) &&
                json_object_set(request, "messages", messages) == 0 &&
                json_object_set_new(request, "add_generation_prompt", json_boolean(answer)) == 0;
    if (made)
        ts_json_write(request, &text, 0);
    json_decref(request);
    ts_status st =
        made && !text.failed ? ts_chat_apply(t->chat, text.s, text.n, out, err) : no_memory(err);
    ts_sb_free(&text);
    return st;
}

/* --- the answer ------------------------------------------------------------------------- */

/* How gpt-oss writes: <|channel|>NAME<|message|>TEXT<|end|><|start|>assistant<|channel|> ... What
 * is not the text of the channel "final" is thought; names of channels and roles are neither. */
typedef struct channels {
    bool header, thought;
    char name[32];
    size_t n;
} channels;

/* True: the token was one of these, with nothing to show. */
static bool change_channel(channels *c, const char *s, size_t n)
{
    static const char *const words[] = {"<|start|>", "<|channel|>", "<|message|>", "<|end|>"};
    size_t i = 0;
    while (i < 4 && (strlen(words[i]) != n || memcmp(words[i], s, n) != 0))
        i++;
    if (i == 4)
        return false;
    if (i < 2) {
        c->header = true;
        c->n = 0;
    } else if (i == 2 && c->header) {
        c->header = false;
        c->thought = c->n != 5 || memcmp(c->name, "final", 5) != 0;
    }
    return true;
}

static void add_header(channels *c, const char *s, size_t n)
{
    for (size_t i = 0; i < n && c->n < sizeof c->name; i++)
        c->name[c->n++] = s[i];
}

typedef struct answer {
    talk *t;
    talk_sink *sink;
    void *user;
    ts_sampler *sampler;
    channels channels;
} answer;

/* Whole characters go out, a begun one waits. */
static bool show_text(answer *a, const char *s, size_t n, bool all)
{
    ts_sb *held = &a->t->held;
    ts_sb_add(held, s, n);
    size_t whole = all || held->n == 0 ? held->n : held->n - ts_utf8_tail(held->s, held->n);
    size_t valid = held->n ? ts_utf8_valid(held->s, whole) : 0;
    bool thought = a->channels.thought, read = true;
    if (whole == 0)
        return true;
    read = a->sink(a->user, held->s, whole, thought);
    /* what isn't UTF-8 is shown as it is, and remembered as U+FFFD: messages are JSON */
    ts_sb *text = thought ? &a->t->thought : &a->t->said;
    ts_sb_add(text, held->s, valid);
    for (size_t i = valid; i < whole;) {
        size_t k = ts_utf8_valid(held->s + i, whole - i);
        ts_sb_add(text, held->s + i, k);
        i += k;
        if (i < whole) {
            ts_sb_str(text, "\xef\xbf\xbd");
            i++;
        }
    }
    memmove(held->s, held->s + whole, held->n - whole);
    held->n -= whole;
    return read;
}

static bool take_token(answer *a, ts_token id)
{
    const char *s;
    size_t n = ts_token_piece(a->t->engine, id, false, &s);
    if (n == 0) { /* a control token */
        size_t k = ts_token_piece(a->t->engine, id, true, &s);
        bool read = show_text(a, "", 0, true);
        change_channel(&a->channels, s, k);
        return read;
    }
    if (a->channels.header) {
        add_header(&a->channels, s, n);
        return true;
    }
    return show_text(a, s, n, false);
}

/* What the KV cache has of the prompt; the last token is always computed, for its logits. */
static size_t common_prefix(const talk *t, const ts_chat_prompt *p)
{
    size_t have = (size_t)ts_session_pos(t->session), k = 0;
    while (k < have && k < p->n_ids && t->cached[k] == p->ids[k])
        k++;
    return k == p->n_ids ? k - 1 : k;
}

static ts_status eval(talk *t, const ts_token *ids, size_t n, ts_error *err)
{
    size_t before = (size_t)ts_session_pos(t->session);
    ts_status st = ts_session_eval(t->session, ids, n, 1, err);
    /* a Ctrl-C that came when nothing was being computed ends the next computation, of no answer
     * that anybody wanted stopped */
    if (st == TS_CANCELLED && !interrupt_caught() && ts_session_pos(t->session) == (int64_t)before)
        st = ts_session_eval(t->session, ids, n, 1, err);
    size_t done = (size_t)ts_session_pos(t->session) - before;
    memcpy(t->cached + before, ids, done * sizeof *ids);
    return st;
}

static ts_status prefill(talk *t, const ts_chat_prompt *p, ts_error *err)
{
    double start = cli_now();
    if (p->n_ids == 0)
        return ts_fail(err, TS_BAD_ARG, "the chat template makes nothing of this conversation");
    if ((int64_t)p->n_ids > t->info.n_ctx)
        return ts_fail(
            err, TS_FULL,
            "the conversation has %zu tokens, but the context holds %lld (-c sets it, /reset "
            "begins anew)",
            p->n_ids, (long long)t->info.n_ctx);
    size_t k = common_prefix(t, p), batch = (size_t)t->o->batch;
    ts_status st = ts_session_rewind(t->session, (int64_t)k, err);
    t->last.prompt = (int64_t)p->n_ids;
    t->last.reused = (int64_t)k;
    for (size_t i = k; st == TS_OK && i < p->n_ids; i += batch)
        st = eval(t, p->ids + i, p->n_ids - i < batch ? p->n_ids - i : batch, err);
    t->last.prefill_seconds = cli_now() - start;
    return st;
}

static ts_status decode(answer *a, talk_end *end, ts_error *err)
{
    talk *t = a->t;
    int64_t most = t->o->predict < 0 ? INT64_MAX : t->o->predict;
    *end = TALK_COUNT;
    while (t->last.made < most) {
        ts_token id;
        ts_status st = ts_sampler_sample(a->sampler, ts_session_logits(t->session, 0),
                                         (size_t)t->info.n_vocab, &id, err);
        if (st)
            return st;
        ts_sampler_accept(a->sampler, id);
        if (ts_token_is_eog(t->engine, id)) {
            *end = TALK_DONE;
            break;
        }
        t->last.made++;
        if (!take_token(a, id)) {
            *end = TALK_UNREAD;
            break;
        }
        if (t->held.failed || t->said.failed || t->thought.failed)
            return no_memory(err);
        if (t->last.made == most)
            break;
        if (ts_session_pos(t->session) == t->info.n_ctx) {
            *end = TALK_FULL;
            break;
        }
        if (interrupt_caught() || (st = eval(t, &id, 1, err))) {
            if (!interrupt_caught())
                return st;
            *end = TALK_INTERRUPTED;
            break;
        }
    }
    return TS_OK;
}

static ts_status make_answer(answer *a, const ts_chat_prompt *p, talk_end *end, ts_error *err)
{
    talk *t = a->t;
    ts_status st = prefill(t, p, err);
    if (st == TS_CANCELLED && interrupt_caught()) {
        *end = TALK_INTERRUPTED;
        return TS_OK;
    }
    if (st)
        return st;
    st = sampling_open(&a->sampler, &t->o->sampling, t->seed + (uint64_t)t->all.turns, err);
    if (st)
        return st;
    for (size_t i = 0; i < p->n_ids; i++)
        ts_sampler_accept(a->sampler, p->ids[i]);
    double start = cli_now();
    st = decode(a, end, err);
    show_text(a, "", 0, true);
    t->last.decode_seconds = cli_now() - start;
    return st;
}

static void count(talk *t)
{
    t->all.turns++;
    t->all.prompt += t->last.prompt;
    t->all.reused += t->last.reused;
    t->all.made += t->last.made;
    t->all.prefill_seconds += t->last.prefill_seconds;
    t->all.decode_seconds += t->last.decode_seconds;
}

static ts_status keep_answer(talk *t, json_t *messages, ts_error *err)
{
    json_t *m = message("assistant", t->said.s ? t->said.s : "", t->said.n);
    if (m && t->thought.n > 0 &&
        json_object_set_new(m, "reasoning_content", json_stringn(t->thought.s, t->thought.n))) {
        json_decref(m);
        m = NULL;
    }
    return json_array_append_new(messages, m) ? no_memory(err) : TS_OK;
}

ts_status talk_ask(talk *t, const char *text, size_t n, talk_sink *sink, void *user, talk_end *end,
                   ts_error *err)
{
    answer a = {.t = t, .sink = sink, .user = user};
    ts_chat_prompt p = {0};
    json_t *messages = json_array(); /* json_copy loses elements where memory is short */
    ts_status st = TS_OK;

    t->held.n = t->said.n = t->thought.n = 0;
    t->last = (talk_numbers){.turns = 1};
    interrupt_catch();
    if (!messages || json_array_extend(messages, t->messages) ||
        json_array_append_new(messages, message("user", text, n)))
        st = no_memory(err);
    if (st == TS_OK)
        st = apply(t, messages, true, &p, err);
    if (st == TS_OK)
        st = make_answer(&a, &p, end, err);
    if (st == TS_OK)
        st = keep_answer(t, messages, err);
    ts_sampler_close(a.sampler);
    ts_chat_prompt_free(&p);
    if (st) {
        json_decref(messages);
        return st;
    }
    json_decref(t->messages);
    t->messages = messages;
    count(t);
    return TS_OK;
}

/* --- files ------------------------------------------------------------------------------ */

static ts_status write_file(const char *path, const char *text, ts_error *err)
{
    ts_sb beside = {0};
    ts_sb_printf(&beside, "%s.%ld.tmp", path, (long)getpid());
    if (beside.failed)
        return no_memory(err);
    FILE *f = fopen(beside.s, "wx");
    int why = errno;
    bool made = f != NULL;
    bool ok = f && fputs(text, f) >= 0 && fputc('\n', f) != EOF;
    if (f && !ok)
        why = errno;
    if (f && fclose(f) && ok) {
        ok = false;
        why = errno;
    }
    if (ok && rename(beside.s, path)) {
        ok = false;
        why = errno;
    }
    if (made && !ok)
        unlink(beside.s);
    ts_sb_free(&beside);
    return ok ? TS_OK : ts_fail(err, TS_IO, "%s: cannot be written: %s", path, strerror(why));
}

ts_status talk_save(const talk *t, const char *path, ts_error *err)
{
    json_t *o = json_pack("{s:O}", "messages", t->messages);
    ts_sb text = {0};
    if (o)
        ts_json_write(o, &text, TS_JSON_LINES);
    ts_status st = o && !text.failed ? write_file(path, text.s, err) : no_memory(err);
    json_decref(o);
    ts_sb_free(&text);
    return st;
}

static ts_status read_messages(const char *path, json_t **out, ts_error *err)
{
    char *text;
    size_t n;
    json_t *o = NULL;
    ts_status st = text_read(path, &text, &n, err);
    if (st)
        return st;
    st = ts_json_read(&o, text, n, path, TS_JSON_NUL | TS_JSON_TWICE, err);
    free(text);
    if (st)
        return st;
    *out = json_incref(json_object_get(o, "messages"));
    json_decref(o);
    if (!json_is_array(*out) || json_array_size(*out) == 0) {
        json_decref(*out);
        return ts_fail(err, TS_BAD_ARG, "%s: holds no messages", path);
    }
    return TS_OK;
}

ts_status talk_load(talk *t, const char *path, ts_error *err)
{
    json_t *messages = NULL;
    ts_chat_prompt p = {0};
    ts_error why = {0};
    ts_status st = read_messages(path, &messages, err);
    if (st)
        return st;
    st = apply(t, messages, false, &p, &why);
    ts_chat_prompt_free(&p);
    if (st) {
        json_decref(messages);
        return ts_fail(err, st, "%s: %s", path, why.msg);
    }
    json_decref(t->messages);
    t->messages = messages;
    return TS_OK;
}
