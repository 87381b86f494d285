/* test_tokenizer_golden.c - ids equal llama.cpp's on every string of golden/tok_corpus.py: with two
 * small vocabularies that are committed, one of them under every pre-tokenizer, and with the real
 * models that are there. golden/make_tokenizer.py describes the files. */
#include <dirent.h>
#include <sys/stat.h>

#include "check.h"
#include "tok_vocab.h"

enum { GROUP = 100, MAX_STRINGS = 20480 };

typedef struct corpus {
    char *bytes;
    size_t n_bytes, n;
    ts_str s[MAX_STRINGS];
} corpus;

static char *read_all(FILE *f, size_t *n)
{
    ts_sb b = {0};
    char buf[1 << 16];
    for (size_t k; (k = fread(buf, 1, sizeof buf, f)) > 0;)
        ts_sb_add(&b, buf, k);
    *n = b.n;
    return b.s;
}

/* false: there is no Python to make it. */
static bool make_corpus(corpus *c)
{
    FILE *f = popen("python3 '" TS_TEST_DIR "/golden/tok_corpus.py'", "r");
    if (!f)
        return false;
    c->bytes = read_all(f, &c->n_bytes);
    if (pclose(f) != 0 || !c->bytes)
        return false;
    for (size_t at = 0; at + 4 <= c->n_bytes && c->n < MAX_STRINGS; c->n++) {
        uint32_t len;
        memcpy(&len, c->bytes + at, 4);
        c->s[c->n] = (ts_str){c->bytes + at + 4, len};
        at += 4 + len;
    }
    return true;
}

/* --- one vocabulary ---------------------------------------------------------- */

/* CRC-32 as in zlib. */
static uint32_t crc32(uint32_t crc, uint32_t v)
{
    crc = ~crc;
    for (int i = 0; i < 4; i++) {
        crc ^= v >> 8 * i & 0xff;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320u & -(crc & 1));
    }
    return ~crc;
}

/* Compares ids with the decimal numbers in `line`. */
static bool same_ids(const char *line, const ts_token *ids, size_t n)
{
    char *end;
    for (size_t i = 0; i < n; i++) {
        long v = strtol(line, &end, 10);
        if (end == line || v != ids[i])
            return false;
        line = end;
    }
    return strtol(line, &end, 10) == 0 && end == line;
}

static uint32_t group_hash(const ts_tokenizer *t, const corpus *c, size_t group)
{
    uint32_t h = 0;
    for (size_t i = group * GROUP; i < (group + 1) * GROUP && i < c->n; i++) {
        ts_token *ids;
        size_t n;
        REQUIRE(ts_tokenizer_encode(t, c->s[i].s, c->s[i].n, i & 3, &ids, &n, NULL) == TS_OK);
        for (size_t k = 0; k < n; k++)
            h = crc32(h, (uint32_t)ids[k]);
        h = crc32(h, UINT32_MAX);
        free(ids);
    }
    return h;
}

/* Every line of a golden file. Full ids come after the hashes but say more: all are checked. */
static void check_lines(const ts_tokenizer *t, const corpus *c, const char *name, char *text)
{
    size_t group = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (line[0] == 'h') {
            CHECK_MSG(group_hash(t, c, group) == strtoull(line + 2, NULL, 16),
                      "%s: strings %zu to %zu", name, group * GROUP, group * GROUP + GROUP - 1);
            group++;
        } else if (line[0] == 'f') {
            char *rest;
            size_t i = strtoull(line + 2, &rest, 10), n;
            ts_token *ids;
            REQUIRE(i < c->n);
            REQUIRE(ts_tokenizer_encode(t, c->s[i].s, c->s[i].n, i & 3, &ids, &n, NULL) == TS_OK);
            CHECK_MSG(same_ids(rest, ids, n), "%s: string %zu", name, i);
            free(ids);
        }
    }
    CHECK_MSG(group == (c->n + GROUP - 1) / GROUP, "%s: %zu groups", name, group);
}

/* Where a model is, "" if it isn't here. */
static void find_model(const char *file, char *path, size_t n)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    struct stat st;
    if (strstr(file, ".vocab"))
        snprintf(path, n, "%s/golden/tokenizer/%s", TS_TEST_DIR, file);
    else if (cache && *cache)
        snprintf(path, n, "%s/tessera/models/%s", cache, file);
    else
        snprintf(path, n, "%s/.cache/tessera/models/%s", home ? home : "", file);
    if (stat(path, &st) != 0)
        *path = 0;
}

/* The file with another tokenizer.ggml.pre, in memory. */
static void replace_pre(const char *path, const char *pre, int *fd, char out[40])
{
    static const char key[] = "tokenizer.ggml.pre\x08\0\0";
    FILE *f = fopen(path, "rb");
    REQUIRE(f);
    size_t n;
    char *b = read_all(f, &n);
    fclose(f);
    char *at = memmem(b, n, key, sizeof key);
    REQUIRE(at);
    at += sizeof key;
    uint64_t old, len = strlen(pre);
    memcpy(&old, at, 8);
    ts_sb s = {0};
    ts_sb_add(&s, b, (size_t)(at - b));
    ts_sb_add(&s, &len, 8);
    ts_sb_str(&s, pre);
    ts_sb_add(&s, at + 8 + old, n - (size_t)(at - b) - 8 - old);
    tv_file(s.s, s.n, fd, out);
    ts_sb_free(&s);
    free(b);
}

/* The value of a header line "key value" into out, "" if there is none. */
static void header(const char *text, const char *key, char *out, size_t n)
{
    size_t k = strlen(key);
    *out = 0;
    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (strncmp(p, key, k) == 0 && p[k] == ' ')
            snprintf(out, n, "%.*s", (int)strcspn(p + k + 1, "\n"), p + k + 1);
}

static void check_golden(const corpus *c, const char *name)
{
    char path[600], file[256], pre[64], model[600];
    snprintf(path, sizeof path, "%s/golden/tokenizer/%s", TS_TEST_DIR, name);
    FILE *f = fopen(path, "r");
    REQUIRE(f);
    size_t n;
    char *text = read_all(f, &n);
    fclose(f);
    REQUIRE(text);
    header(text, "model", file, sizeof file);
    header(text, "pre", pre, sizeof pre);
    find_model(file, model, sizeof model);
    if (!*model) {
        printf("%s: skipped, %s isn't here\n", name, file);
        free(text);
        return;
    }
    int fd = -1;
    ts_gguf *g = NULL;
    ts_tokenizer *t = NULL;
    ts_error err = {0};
    if (*pre)
        replace_pre(model, pre, &fd, model);
    CHECK_MSG(ts_gguf_open(&g, model, &err) == TS_OK && ts_tokenizer_open(&t, g, &err) == TS_OK,
              "%s: %s", name, err.msg);
    if (t)
        check_lines(t, c, name, text);
    ts_tokenizer_close(t);
    ts_gguf_close(g);
    if (fd >= 0)
        close(fd);
    free(text);
}

int main(void)
{
    static corpus c;
    if (!make_corpus(&c)) {
        printf("python3 makes the strings, and there is none\n");
        return 77;
    }
    CHECK(c.n >= 20000);
    struct dirent **names;
    int n = scandir(TS_TEST_DIR "/golden/tokenizer", &names, NULL, alphasort), files = 0;
    for (int i = 0; i < n; i++) {
        if (strstr(names[i]->d_name, ".ids")) {
            check_golden(&c, names[i]->d_name);
            files++;
        }
        free(names[i]);
    }
    free(names);
    CHECK(files >= 15);
    free(c.bytes);
    return check_done("tokenizer_golden");
}
