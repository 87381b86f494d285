/* test_reply_templates.c - calls as the templates of real models write them, read back.
 *
 * A template writes a conversation in which the assistant thinks, says something and calls a tool
 * twice (or once, where it refuses more); what it writes for the assistant is read as the model's
 * answer. The templates are other people's and not in this tree: scripts/fetch_templates.py gets
 * them. Without them the test is skipped, unless TS_TEST_TEMPLATES says that they must be there. */
#include "reply_case.h"

#define ARGS "{\"city\": \"Oslo\", \"days\": 3, \"deep\": {\"a\": [1, true, null, \"x\"]}}"

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"look\", \"description\": \"d\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"city\": {\"type\": \"string\", \"description\": \"d\"}, "
    "\"days\": {\"type\": \"integer\", \"description\": \"d\"}, "
    "\"deep\": {\"type\": \"object\", \"description\": \"d\", \"additionalProperties\": {\"type\": "
    "\"object\"}}}, \"required\": [\"city\"]}}}]";

static const struct {
    const char *file, *form;
    int calls;  /* that come back; 0: the template doesn't write them, or in no form that is read */
    bool whole; /* with thinking and words before them */
} table[] = {
    {"Apertus-8B-Instruct.jinja", "Apertus", 2, true},
    {"Apriel-1.6-15b-Thinker-fixed.jinja", "Apriel", 2, false},
    {"Bielik-11B-v3.0-Instruct.jinja", "Hermes", 2, true},
    {"ByteDance-Seed-OSS.jinja", "Seed-OSS", 2, true},
    {"Cohere2MoE.jinja", "Command R7B", 2, true},
    {"CohereForAI-c4ai-command-r-plus-tool_use.jinja", "Command R+", 0, false},
    {"CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja", "Command R7B", 2, true},
    {"GLM-4.6.jinja", "GLM 4.5", 2, true},
    {"GLM-4.7-Flash.jinja", "GLM 4.5", 2, true},
    {"GigaChat3-10B-A1.8B.jinja", "GigaChat 3", 1, true},
    {"GigaChat3.1-10B-A1.8B.jinja", "GigaChat 3.1", 1, true},
    {"HuggingFaceTB-SmolLM3-3B.jinja", "none", 0, false},
    {"Kimi-K2-Instruct.jinja", "Kimi K2", 0, false},
    {"Kimi-K2-Thinking.jinja", "Kimi K2", 0, false},
    {"Kimi-K3.jinja", "Kimi K3", 2, true},
    {"LFM2-8B-A1B.jinja", "LFM2", 0, false},
    {"LFM2.5-8B-A1B.jinja", "LFM2", 2, true},
    {"LFM2.5-Instruct.jinja", "LFM2", 0, false},
    {"MiMo-VL.jinja", "Hermes", 2, true},
    {"MiniMax-M1.jinja", "Apriel", 2, true},
    {"MiniMax-M2.jinja", "MiniMax M2", 2, true},
    {"MiniMax-M3.jinja", "MiniMax M3", 0, false},
    {"Mistral-Small-3.2-24B-Instruct-2506.jinja", "Mistral 2411", 2, true},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja", "Qwen3-Coder", 2, true},
    {"NVIDIA-Nemotron-Nano-v2.jinja", "Nemotron", 2, false},
    {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", "Hermes", 2, true},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", "Hermes", 2, true},
    {"Qwen-QwQ-32B.jinja", "Hermes", 2, true},
    {"Qwen-Qwen2.5-7B-Instruct.jinja", "Hermes", 2, true},
    {"Qwen-Qwen3-0.6B.jinja", "Hermes", 2, true},
    {"Qwen3-Coder.jinja", "Qwen3-Coder", 2, true},
    {"Qwen3.5-4B.jinja", "Qwen3-Coder", 2, true},
    {"Reka-Edge.jinja", "Hermes", 2, false},
    {"Spark2.5.jinja", "GLM 4.5", 2, true},
    {"StepFun3.5-Flash.jinja", "Qwen3-Coder", 2, true},
    {"deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja", "DeepSeek V3", 0, false},
    {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "DeepSeek V3", 2, true},
    {"deepseek-ai-DeepSeek-V3.1.jinja", "DeepSeek V3.1", 2, true},
    {"deepseek-ai-DeepSeek-V3.2.jinja", "DeepSeek V3.2", 2, true},
    {"deepseek-ai-DeepSeek-V4-Flash-0731.jinja", "DeepSeek V4", 2, true},
    {"deepseek-ai-DeepSeek-V4.jinja", "DeepSeek V4", 2, true},
    {"fireworks-ai-llama-3-firefunction-v2.jinja", "FireFunction", 0, false},
    {"google-gemma-2-2b-it.jinja", "none", 0, false},
    {"google-gemma-4-31B-it-interleaved.jinja", "Gemma 4", 2, true},
    {"google-gemma-4-31B-it.jinja", "Gemma 4", 2, true},
    {"ibm-granite-granite-3.3-2B-Instruct.jinja", "Granite", 0, false},
    {"ibm-granite-granite-4.0.jinja", "Hermes", 2, true},
    {"ibm-granite-granite-4.1.jinja", "Hermes", 2, true},
    {"inclusionai-ling-3.0-flash.jinja", "GLM 4.5", 2, true},
    {"llama-cpp-deepseek-r1.jinja", "DeepSeek V3", 0, false},
    {"llama-cpp-rwkv-world.jinja", "none", 0, false},
    {"meetkai-functionary-medium-v3.1.jinja", "functionary 3.1", 2, true},
    {"meetkai-functionary-medium-v3.2.jinja", "functionary 3.2", 2, true},
    {"meta-llama-Llama-3.1-8B-Instruct.jinja", "Llama 3", 1, true},
    {"meta-llama-Llama-3.2-3B-Instruct.jinja", "Llama 3", 1, true},
    {"meta-llama-Llama-3.3-70B-Instruct.jinja", "Llama 3", 1, true},
    {"microsoft-Phi-3.5-mini-instruct.jinja", "none", 0, false},
    {"mistralai-Ministral-3-14B-Reasoning-2512.jinja", "Mistral 2411", 2, true},
    {"mistralai-Mistral-Nemo-Instruct-2407.jinja", "Mistral Nemo", 2, true},
    {"moonshotai-Kimi-K2.jinja", "Kimi K2", 2, true},
    {"muse-glimmer.jinja", "Muse", 0, false},
    {"openai-gpt-oss-120b.jinja", "gpt-oss", 1, false},
    {"openbmb-MiniCPM5-1B.jinja", "MiniCPM5", 2, true},
    {"poolside-Laguna-S-2.1.jinja", "GLM 4.5", 2, true},
    {"poolside-Laguna-XS-2.1.jinja", "GLM 4.5", 2, true},
    {"poolside-Laguna-XS.2.jinja", "GLM 4.5", 2, true},
    {"tencent-Hy3.jinja", "Hunyuan 3", 2, true},
    {"unsloth-Apriel-1.5.jinja", "Apriel", 2, true},
    {"unsloth-mistral-Devstral-Small-2507.jinja", "Mistral 2411", 2, true},
    {"upstage-Solar-Open-100B.jinja", "Solar", 2, true},
};

#define ASK "{\"role\": \"user\", \"content\": \"Question?\"}"
#define CALL                                                                                       \
    "{\"id\": \"abcdefgh%d\", \"type\": \"function\", \"function\": {\"name\": \"look\", "         \
    "\"arguments\": " ARGS "}}"

/* What the template makes of a conversation with so many calls; < 0: of the question alone. */
static char *rendered(const ts_chat *c, int calls, bool full)
{
    ts_sb b = {0};
    ts_chat_prompt p = {0};
    ts_error err = {0};
    ts_sb_printf(&b, "{\"tools\": %s, \"add_generation_prompt\": %s, \"messages\": [" ASK, tools,
                 calls < 0 ? "true" : "false");
    if (calls >= 0) {
        ts_sb_printf(&b, ", {\"role\": \"assistant\", \"content\": \"%s\"%s, \"tool_calls\": [",
                     full ? "Words." : "", full ? ", \"reasoning\": \"Thought.\"" : "");
        for (int i = 0; i < calls; i++)
            ts_sb_printf(&b, "%s" CALL, i ? ", " : "", i);
        ts_sb_str(&b, "]}");
    }
    ts_sb_str(&b, "]}");
    ts_status st = ts_chat_apply(c, b.s, b.n, &p, &err);
    ts_sb_free(&b);
    char *text = p.text;
    p.text = NULL;
    ts_chat_prompt_free(&p);
    return st ? NULL : text;
}

/* Whether the parts are thinking and words, where the text has them, and so many calls. */
static bool is_read(const char *parts, const char *text, int calls)
{
    static const char *const before[][2] = {{"Thought.", "r(Thought.)"}, {"Words.", "c(Words.)"}};
    static const char call[] = "f(look)a(" ARGS ")";
    for (int i = 0; i < 2; i++)
        if (strncmp(parts, before[i][1], strlen(before[i][1])) == 0)
            parts += strlen(before[i][1]);
        else if (strstr(text, before[i][0]) && !strstr(parts, before[i][0]))
            return false; /* DeepSeek R1 has words behind calls */
    for (int i = 0; i < calls; i++) {
        if (strncmp(parts, call, sizeof call - 1) != 0)
            return false;
        parts += sizeof call - 1;
    }
    return !strstr(parts, "f(");
}

/* n, or less, so that no marker is cut. */
static size_t whole_markers(const char *s, size_t n)
{
    size_t k = n;
    while (k > 0 && s[k - 1] != '<' && s[k - 1] != '>')
        k--;
    return k > 0 && s[k - 1] == '<' ? k - 1 : n;
}

static bool reads_back(const ts_chat *c, int calls, bool full)
{
    char *prompt = rendered(c, -1, full), *whole = rendered(c, calls, full);
    ts_reply_options opt = {.tools = tools, .n_tools = sizeof tools - 1, .reasoning = true};
    bool ok = false;
    if (prompt && whole) {
        size_t n = 0;
        while (prompt[n] && prompt[n] == whole[n])
            n++;
        n = whole_markers(prompt, n);
        prompt[n] = 0;
        char *parts = heard_of(c, prompt, &opt, whole + n, strlen(whole + n), NULL, 0);
        ok = parts && is_read(parts, whole + n, calls);
        free(parts);
    }
    free(prompt);
    free(whole);
    return ok;
}

static void check_template(size_t i)
{
    char path[700];
    size_t n = 0;
    int calls = 0;
    bool whole = false;
    REQUIRE(chat_template_path(path, sizeof path, table[i].file));
    char *text = chat_read(path, &n);
    CHECK_MSG(text, "%s is missing", path);
    REQUIRE(text);
    talk t = talk_open(text);
    for (int k = 2; k > 0 && !calls; k--)
        for (int full = 1; full >= 0 && !calls; full--)
            if (reads_back(t.c, k, full)) {
                calls = k;
                whole = full;
            }
    CHECK_MSG(strcmp(t.c->speech.form->name, table[i].form) == 0, "%s: %s", table[i].file,
              t.c->speech.form->name);
    CHECK_MSG(calls == table[i].calls && whole == table[i].whole, "%s: %d calls come back%s",
              table[i].file, calls, whole ? ", with words" : "");
    talk_close(&t);
    free(text);
}

int main(void)
{
    char path[700];
    REQUIRE(chat_template_path(path, sizeof path, table[0].file));
    FILE *f = fopen(path, "rb");
    if (!f && !getenv("TS_TEST_TEMPLATES")) {
        printf("reply_templates: skipped, no templates\n");
        return 77;
    }
    if (f)
        fclose(f);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        check_template(i);
    return check_done("reply_templates");
}
