/* talk.js - one conversation in memory: a tree of messages, of which one path is shown.
 *
 * An answer made again and a question asked anew are further children of the same parent, so nothing
 * that was said is ever overwritten; who reads turns between such versions. */

export class Talk {
    constructor(meta, messages) {
        this.meta = meta;
        this.messages = messages; // n -> message
        this.children = new Map(); // n, or -1 for the beginning -> [n] in the order they were made
        for (const m of messages.values()) this.link(m);
        if (!messages.has(meta.head)) meta.head = -1;
    }

    link(m) {
        if (!this.children.has(m.parent)) this.children.set(m.parent, []);
        this.children.get(m.parent).push(m.n);
    }

    add(parent, role, content) {
        const last = [...this.messages.keys()].reduce((a, b) => Math.max(a, b), -1);
        const m = { conversation: this.meta.id, n: Math.max(last + 1, Date.now()), parent, role, content,
            time: Date.now() };
        this.messages.set(m.n, m);
        this.link(m);
        this.meta.head = m.n;
        return m;
    }

    /* The messages from the first to number n. */
    path(n = this.meta.head) {
        const out = [];
        for (let m = this.messages.get(n); m; m = this.messages.get(m.parent)) out.push(m);
        return out.reverse();
    }

    /* A message and what else was tried in its place. */
    versions(m) {
        return this.children.get(m.parent);
    }

    /* Shows the path through message n, to what was said last on it. */
    turnTo(n) {
        const open = [n];
        this.meta.head = n;
        while (open.length) {
            const at = open.pop();
            this.meta.head = Math.max(this.meta.head, at);
            for (const child of this.children.get(at) ?? []) open.push(child);
        }
    }

    /* The request for an answer to message n. Settings that aren't set stay the server's. */
    request(n) {
        const { system, tools, thinking, sampling } = this.meta.settings;
        const messages = system ? [{ role: 'system', content: system }] : [];
        for (const m of this.path(n)) {
            const last = messages.at(-1);
            if (m.role === 'tool') {
                messages.push({ role: 'tool', tool_call_id: m.tool_call_id ?? '', content: m.content });
            } else if (m.role === 'user') {
                // Behind an answer that never came: many templates want the roles to take turns.
                if (last?.role === 'user') last.content += `\n\n${m.content}`;
                else messages.push({ role: 'user', content: m.content });
            } else if (m.content || m.tool_calls?.length) {
                messages.push({ role: 'assistant', content: m.content,
                    ...(m.tool_calls?.length ? { tool_calls: m.tool_calls } : {}) });
            }
        }
        const body = { messages, stream: true, stream_options: { include_usage: true }, ...sampling };
        if (thinking) body.chat_template_kwargs = { enable_thinking: thinking === 'on' };
        if (tools?.trim()) body.tools = JSON.parse(tools);
        return body;
    }
}

/* The beginning of what was asked, as a title. */
export function titleOf(text) {
    const line = text.trim().split('\n', 1)[0].replace(/\s+/g, ' ');
    const letters = Array.from(line);
    return letters.length > 60 ? `${letters.slice(0, 59).join('').trimEnd()}…` : line;
}
