/* chat.js - the messages of one conversation on the page.
 *
 * Owns what is inside #messages. While an answer comes in, only its last block is made anew
 * (markdown.js), at most once a frame, and less often where that takes long; messages outside of the
 * window aren't laid out (content-visibility in style.css). */

import { button, count, element, plural, speed } from './dom.js';
import { render, Stream } from './markdown.js';

const NEAR_END = 60; // pixels: who is that near to the end follows it

export class Chat {
    /* actions: edit(m, text), again(m), turn(m, by), result(m, results), retry(m) */
    constructor(log, messages, toEnd, actions) {
        Object.assign(this, { log, messages, toEnd, actions });
        this.views = new Map(); // n -> view
        this.following = true;
        log.addEventListener('scroll', () => this.scrolled(), { passive: true });
        new ResizeObserver(() => this.follow()).observe(messages);
        new ResizeObserver(() => this.follow()).observe(log);
        toEnd.addEventListener('click', () => {
            this.goToEnd();
            log.focus({ preventScroll: true });
        });
    }

    /* Shows the path of a conversation. Messages that stay keep their nodes. */
    show(talk, running, tokensOfContext) {
        const other = this.talk !== talk;
        this.talk = talk;
        this.context = tokensOfContext;
        if (other) this.views.clear();
        const old = this.views;
        this.views = new Map();
        const nodes = [];
        const { system } = talk.meta.settings;
        if (system && talk.messages.size) nodes.push(systemNode(system));
        for (const m of talk.path()) {
            const versions = talk.versions(m);
            const state = `${versions.indexOf(m.n)}/${versions.length}`;
            let view = old.get(m.n);
            if (!view || view.state !== state || view.m !== m || view.stale) view = this.make(m, versions);
            view.state = state;
            this.views.set(m.n, view);
            nodes.push(view.node);
            view.draw(m === running?.m ? running : null);
        }
        if (!nodes.length) nodes.push(greeting());
        if (other || nodes.length !== this.messages.children.length ||
            nodes.some((node, i) => this.messages.children[i] !== node))
            this.messages.replaceChildren(...nodes);
        // While an answer comes in no other one can be asked for.
        for (const b of this.messages.querySelectorAll('[data-again], [data-edit], .retry, .versions button'))
            b.disabled = !!running || b.dataset.end === 'true';
        if (other) this.goToEnd();
    }

    make(m, versions) {
        const view = m.role === 'assistant' ? new Answer(m, this) : new Said(m, this);
        const at = versions.indexOf(m.n);
        if (versions.length > 1) {
            const turn = (by) => () => this.actions.turn(m, versions[at + by]);
            const before = button('The version before', { image: 'left', onclick: turn(-1) });
            const next = button('The next version', { image: 'right', onclick: turn(1) });
            before.dataset.end = at === 0;
            next.dataset.end = at === versions.length - 1;
            view.foot.prepend(element('span', 'versions', before,
                element('span', 'muted', `${at + 1} of ${versions.length}`), next));
        }
        return view;
    }

    /* The answer that comes in, or has ended, is drawn in the next frame. */
    changed(job) {
        this.job = job;
        if (this.frame) return;
        const draw = () => {
            const began = performance.now();
            this.frame = null;
            this.views.get(this.job.m.n)?.draw(this.job.over ? null : this.job);
            // Long blocks take long: at most a quarter of the time goes into drawing.
            this.rest = began + Math.min(1000, 4 * (performance.now() - began));
        };
        const wait = (this.rest ?? 0) - performance.now();
        this.frame = wait > 16 ? setTimeout(() => requestAnimationFrame(draw), wait)
            : requestAnimationFrame(draw);
    }

    scrolled() {
        const { scrollTop, scrollHeight, clientHeight } = this.log;
        const away = scrollHeight - clientHeight - scrollTop;
        // It goes up by hand only: what grows below isn't who reads going away.
        if (away <= NEAR_END) this.following = true;
        else if (scrollTop < this.top) this.following = false;
        this.top = scrollTop;
        this.toEnd.hidden = this.following || away <= NEAR_END;
    }

    follow() {
        if (this.following) this.log.scrollTop = this.log.scrollHeight;
        else this.scrolled();
    }

    goToEnd() {
        this.following = true;
        this.follow();
        this.toEnd.hidden = true;
    }
}

function greeting() {
    return element('div', 'greeting', element('p', '', 'What would you like to know?'),
        element('p', 'muted', 'Conversations stay in this browser.'));
}

function systemNode(text) {
    const p = element('p', 'plain', text);
    p.dir = 'auto';
    return element('details', 'system', element('summary', '', 'System prompt'), p);
}

function copyButton(label, get) {
    const b = button(label, { image: 'copy', copy: 'text' });
    b.textToCopy = get;
    return b;
}

/* What a user said, or a tool: as it is, no Markdown. */
class Said {
    constructor(m, chat) {
        const tool = m.role === 'tool';
        this.m = m;
        this.body = element('div', 'plain', m.content);
        this.body.dir = 'auto';
        this.foot = element('div', 'foot', copyButton('Copy', () => m.content));
        if (!tool)
            this.foot.append(button('Edit and send again',
                { image: 'edit', edit: '', onclick: () => this.edit(chat) }));
        this.node = element('article', `message ${m.role}`,
            element('h2', tool ? 'who' : 'sr', tool ? 'Result of a tool' : 'You'), this.body, this.foot);
    }

    draw() {}

    edit(chat) {
        const text = element('textarea');
        text.value = this.m.content;
        text.setAttribute('aria-label', 'Edit your message');
        const close = () => {
            form.replaceWith(this.body, this.foot);
            this.foot.querySelector('[data-edit]').focus();
        };
        const send = () => {
            if (text.value.trim() && chat.actions.edit(this.m, text.value)) close();
        };
        const form = element('form', 'editing', text, element('div', 'row end',
            button('Cancel', { onclick: close }), button('Send', { className: 'primary', onclick: send })));
        text.addEventListener('keydown', (e) => {
            if (e.key === 'Escape') {
                e.stopPropagation();
                close();
            } else if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
                e.preventDefault();
                send();
            }
        });
        form.addEventListener('submit', (e) => e.preventDefault());
        this.body.replaceWith(form);
        this.foot.remove();
        fit(text);
        text.addEventListener('input', () => fit(text));
        text.focus();
    }
}

/* As high as its text, up to what the style allows. */
export function fit(textarea) {
    textarea.style.height = 'auto';
    textarea.style.height = `${textarea.scrollHeight + 2}px`;
}

/* What is there already isn't written again: the browser would lay it out again. */
function say(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

/* A model's answer: thoughts, text, calls, how it ended. */
class Answer {
    constructor(m, chat) {
        this.m = m;
        this.chat = chat;
        this.body = element('div', 'markdown');
        this.note = element('div', 'note');
        this.calls = element('div', 'calls');
        this.stats = element('span', 'stats muted');
        this.foot = element('div', 'foot',
            copyButton('Copy the answer', () => m.content),
            button('Answer again', { image: 'again', again: '', onclick: () => chat.actions.again(m) }),
            this.stats);
        this.node = element('article', 'message assistant', element('h2', 'sr', 'Answer'),
            this.body, this.calls, this.note, this.foot);
        this.stream = null;
        this.drawn = '';
        this.thought = 0; // characters of the thoughts that are drawn
    }

    draw(job) {
        const { m } = this;
        this.node.setAttribute('aria-busy', String(!!job));
        if (m.reasoning) this.drawThoughts(job);
        // Made before there is text: all of a live answer goes through it, and is read out.
        if (job) this.stream ??= new Stream(this.body, this.chat.actions.heard);
        this.drawText(!job);
        const calls = JSON.stringify(m.tool_calls ?? []);
        if (calls !== this.callsDrawn) {
            this.callsDrawn = calls;
            this.calls.replaceChildren(...(m.tool_calls ?? []).map((call) => callNode(call)));
        }
        this.foot.hidden = !!job && !m.content;
        this.foot.querySelector('[data-again]').hidden = !!job;
        say(this.stats, job ? liveStats(job) : endStats(m, this.chat.context));
        const waits = job && !m.content && !m.reasoning && !m.tool_calls?.length;
        this.drawNote(waits ? 'waiting' : job ? '' : 'end', job?.began);
    }

    drawText(over) {
        const { content } = this.m;
        if (content === this.drawn && !(over && this.stream)) return;
        if (!this.stream) {
            this.body.replaceChildren();
            render(this.body, content);
        } else {
            if (over) this.stream.end(content);
            else this.stream.set(content);
            if (over) this.stream = null;
        }
        this.drawn = content;
    }

    drawThoughts(job) {
        const { m } = this;
        if (!this.thoughts) {
            this.thoughts = { text: document.createTextNode(''), summary: element('summary') };
            const p = element('p', 'plain', this.thoughts.text);
            p.dir = 'auto';
            this.body.before(element('details', 'thoughts', this.thoughts.summary, p));
        }
        if (m.reasoning.length > this.thought) this.thoughts.text.appendData(m.reasoning.slice(this.thought));
        this.thought = m.reasoning.length;
        const thinks = job && !m.content && !m.tool_calls?.length;
        say(this.thoughts.summary, thinks ? 'Thinking…'
            : m.reasoning_ms ? `Thought for ${seconds(m.reasoning_ms)}` : 'Thoughts');
    }

    drawNote(state, began) {
        const { m } = this;
        if (state !== 'end') {
            if (this.noted !== state)
                this.note.replaceChildren(...(state ? [element('p', 'muted waiting')] : []));
            this.noted = state;
            const waited = Math.floor((performance.now() - began) / 1000);
            if (state) say(this.note.firstChild, `Reading the prompt…${waited > 2 ? ` ${waited} s` : ''}`);
            return;
        }
        const said = m.error || endOf(m.finish);
        if (this.noted === `end ${said}`) return;
        this.noted = `end ${said}`;
        this.note.replaceChildren();
        if (!said) return;
        const p = element('p', m.error ? 'wrong' : 'muted', said);
        this.note.append(p);
        if (!m.error && m.finish) return;
        this.note.append(button('Try again',
            { className: 'retry', onclick: () => this.chat.actions.retry(m) }));
        if (m.until > Date.now()) countDown(m.until, p, said);
    }
}

function endOf(finish) {
    switch (finish) {
    case 'stopped': return 'Stopped.';
    case 'length': return 'The answer reached the limit of tokens.';
    case undefined: return 'The answer was cut off: this page was closed meanwhile.';
    default: return '';
    }
}

function countDown(until, p, said) {
    const tick = () => {
        const left = Math.ceil((until - Date.now()) / 1000);
        p.textContent = left > 0 ? `${said} It asks to wait ${plural(left, 'second')}.`
            : `${said} It may have time now.`;
        if (left > 0) setTimeout(() => p.isConnected && tick(), 1000);
    };
    tick();
}

function callNode(call) {
    const { name = '', arguments: args = '' } = call.function ?? {};
    let shown = args;
    try {
        shown = JSON.stringify(JSON.parse(args), null, 2);
    } catch {
        // not complete, or not JSON: as it is
    }
    return element('div', 'call', element('p', '', 'Calls ', element('strong', '', name || '…')),
        element('pre', 'plain', shown));
}

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;

function liveStats(job) {
    const ms = performance.now() - job.first;
    if (!job.first || job.pieces < 2 || ms < 200) return '';
    return `${plural(job.pieces, 'token')} · ${speed(1000 * (job.pieces - 1) / ms)}`;
}

function endStats(m, context) {
    const s = m.speeds;
    if (!s) return '';
    const out = [];
    if (s.predicted_n) {
        const tps = s.predicted_ms > 0 ? `, ${speed(1000 * s.predicted_n / s.predicted_ms)}` : '';
        out.push(`answer ${plural(s.predicted_n, 'token')}${tps}`);
    }
    if (s.prompt_n || s.cache_n) {
        const tps = s.prompt_n > 0 && s.prompt_ms > 0 ? `, ${speed(1000 * s.prompt_n / s.prompt_ms)}` : '';
        const known = s.cache_n ? ` and ${count(s.cache_n)} known` : '';
        out.push(`prompt ${plural(s.prompt_n, 'token')}${known}${tps}`);
    }
    if (s.total && context) out.push(`context ${count(s.total)} of ${count(context)}`);
    return out.join(' · ');
}
