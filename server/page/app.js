/* app.js - what is on the page, and what keys and buttons do.
 *
 * The part of the address behind # says what is shown: #c=ID, #plan, or nothing for a new chat. Answers go on
 * when another conversation is shown (answers.js). What is said is kept as it comes (store.js): at once what
 * the user says, once a second what the model does. */

import { Answers } from './answers.js';
import * as api from './api.js';
import { Chat, fit } from './chat.js';
import { button, byId, count, element, local, plural, session } from './dom.js';
import { askKey } from './key.js';
import { List } from './list.js';
import { showPlan } from './plan.js';
import { MAC, Settings, noSettings } from './settings.js';
import { newConversation, openStore } from './store.js';
import { Talk, titleOf } from './talk.js';

const HEARD = 12; // blocks that wait for a screen reader

const store = await openStore();
let talk;        // what is shown
let turns = 0;   // how often another one was
let server = {}; // {model, context}
const tabs = 'BroadcastChannel' in window ? new BroadcastChannel('tessera') : null;
const narrow = matchMedia('(max-width: 52rem)');
const touch = matchMedia('(pointer: coarse)');
const planShown = () => !byId('plan-view').hidden;

const answers = new Answers(save, {
    began() {
        show();
        chat.goToEnd();
        // The button that asked for it may be gone.
        if (document.activeElement === document.body)
            byId(touch.matches ? 'log' : 'message').focus({ preventScroll: true });
    },
    changed(job) {
        if (talk === job.talk) chat.changed(job);
    },
    ended,
});

const list = new List(store, {
    shown: () => planShown() ? null : talk,
    busy: (id) => answers.jobs.has(id),
    async renamed(title) {
        talk.meta.title = title;
        await save(talk);
        show();
    },
    removed,
    imported(conversations) {
        notice('');
        heard(`${plural(conversations.length, 'conversation')} imported.`);
        if (conversations.length) location.hash = `#c=${conversations[0].id}`;
        list.draw();
    },
    failed: notice,
});

const chat = new Chat(byId('log'), byId('messages'), byId('to-end'), {
    edit: (m, text) => send(text, m.parent),
    again: (m) => answer(m.parent),
    retry,
    turn(m, n) {
        talk.turnTo(n);
        save(talk);
        show();
        byId('log').focus({ preventScroll: true });
    },
    heard,
});

const settings = new Settings((s) => {
    talk.meta.settings = s;
    local.set('tessera.settings', JSON.stringify(s));
    if (talk.messages.size) save(talk);
    show();
});

/* ---- what is said aloud, shown as a notice, kept ---- */

/* For screen readers: whole blocks, not every token. */
function heard(node) {
    const text = typeof node === 'string' ? node : node.textContent;
    byId('heard').append(element('p', '', text));
    while (byId('heard').children.length > HEARD) byId('heard').firstChild.remove();
}

function notice(sentence, ...more) {
    const p = byId('notice');
    p.replaceChildren(sentence, ...more);
    p.hidden = !sentence;
}

/* Quietly: while an answer comes in, when the list stays as it is and the end of it is kept aloud. */
async function save(t, messages = [], quietly = false) {
    if (!t.messages.size) return; // nothing was said, or it was removed
    t.meta.updated = Date.now();
    try {
        await store.put(t.meta, messages);
    } catch (e) {
        if (!quietly)
            notice(`This browser couldn’t keep the conversation (${e?.message || 'no reason given'}): ` +
                'export what you need.');
    }
    if (quietly) return;
    tabs?.postMessage({ id: t.meta.id });
    await list.draw().catch(() => {}); // the store is gone: the page goes on with what it has
}

function lastSettings() {
    try {
        const s = JSON.parse(local.get('tessera.settings'));
        return { ...noSettings(), ...s };
    } catch {
        return noSettings();
    }
}

/* ---- questions and answers ---- */

/* Whether it was taken. */
function send(text, parent = talk.meta.head) {
    if (!text.trim() || answers.of(talk)) return false;
    const m = talk.add(parent, 'user', text);
    m.finish = 'said';
    talk.meta.title ||= titleOf(text);
    save(talk, [m]);
    if (location.hash !== `#c=${talk.meta.id}`) history.pushState(null, '', `#c=${talk.meta.id}`);
    answer(m.n);
    return true;
}

const answer = (parent, m) => answers.ask(talk, parent, m, server.model);

/* An answer that has nothing yet is tried again in its place, another one beside it. */
function retry(m) {
    if (m.content || m.reasoning || m.tool_calls) {
        answer(m.parent);
        return;
    }
    for (const name of ['error', 'kind', 'until', 'finish', 'speeds']) delete m[name];
    if (chat.views.has(m.n)) chat.views.get(m.n).stale = true;
    answer(m.parent, m);
}

function ended(job) {
    const { m } = job;
    if (talk === job.talk) chat.changed(job);
    show();
    if (m.error) heard(m.error);
    else if (m.finish === 'stopped') heard('Stopped.');
    if (m.kind === 'key') askKey(m.error, () => talk === job.talk && retry(m));
    else if (!m.error && !server.model) greet(); // it wasn't there when the page came
}

async function removed(id) {
    const job = answers.jobs.get(id);
    job?.talk.messages.clear(); // nothing of it is kept from here on
    job?.stop.abort();
    answers.jobs.delete(id);
    await store.remove(id);
    tabs?.postMessage({ id, removed: true });
    await newChat();
}

/* ---- views ---- */

function newChat() {
    if (location.hash) history.pushState(null, '', location.pathname + location.search);
    return route();
}

async function route() {
    const plan = location.hash === '#plan';
    byId('plan-view').hidden = !plan;
    byId('chat-view').hidden = plan;
    byId('open-plan').setAttribute('aria-pressed', String(plan));
    if (plan) {
        if (!talk) await openTalk('');
        closeSide(false);
        byId('title').textContent = 'Plan';
        document.title = 'Plan · Tessera';
        loadPlan();
        byId('plan-view').focus({ preventScroll: true });
        await list.draw();
        return;
    }
    const id = location.hash.startsWith('#c=') ? location.hash.slice(3) : '';
    if (!talk || (talk.meta.id !== id && !(id === '' && !talk.messages.size))) await openTalk(id);
    closeSide(false);
    show();
    await list.draw();
    if (!touch.matches) byId('message').focus();
}

async function openTalk(id) {
    keepDraft();
    const turn = ++turns;
    const meta = id && (answers.jobs.get(id)?.talk.meta ?? (await store.list()).find((c) => c.id === id));
    if (id && !meta) notice('This conversation isn’t in this browser.');
    const next = answers.jobs.get(id)?.talk ?? (meta ? new Talk(meta, await store.load(meta))
        : new Talk(newConversation(lastSettings()), new Map()));
    if (turn !== turns) return; // another one was asked for meanwhile
    talk = next;
    byId('message').value = session.get(draftKey()) ?? '';
    fit(byId('message'));
}

const draftKey = () => `tessera.draft.${talk.messages.size ? talk.meta.id : 'new'}`;

function keepDraft() {
    if (!talk) return;
    const text = byId('message').value;
    session.set(draftKey(), text || null);
}

function show() {
    const job = answers.of(talk);
    if (!planShown()) {
        byId('title').textContent = talk.meta.title || 'New chat';
        document.title = talk.meta.title ? `${talk.meta.title} · Tessera` : 'Tessera';
    }
    chat.show(talk, job, server.context);
    const b = byId('send');
    const label = job ? 'Stop' : 'Send';
    if (b.getAttribute('aria-label') !== label) {
        b.setAttribute('aria-label', label);
        b.title = job ? 'Stop (Esc)' : 'Send (Enter)';
        b.querySelector('use').setAttribute('href', job ? '#i-stop' : '#i-send');
    }
    const changed = Object.keys(talk.meta.settings.sampling).length;
    const parts = [];
    if (talk.meta.settings.system) parts.push('system prompt');
    if (talk.meta.settings.thinking) parts.push(`thinking ${talk.meta.settings.thinking}`);
    if (changed) parts.push(`${plural(changed, 'sampling setting')} changed`);
    if (talk.meta.settings.tools) parts.push('tools');
    byId('status').textContent = parts.join(' · ');
}

async function loadPlan() {
    const root = byId('plan');
    root.replaceChildren(element('p', 'muted', 'Asking the server…'));
    try {
        showPlan(root, await api.getJson('plan'));
    } catch (e) {
        const again = button('Try again', { className: 'retry', onclick: loadPlan });
        root.replaceChildren(element('p', 'wrong', e.message), again);
        if (e.kind === 'key') askKey(e.message, loadPlan);
    }
}

async function greet() {
    try {
        const models = await api.getJson('v1/models');
        server.model = String(models.data?.[0]?.id ?? '');
        const props = await api.getJson('props').catch(() => ({}));
        const given = props.default_generation_settings ?? {};
        server.context = given.n_ctx ?? props.n_ctx ?? 0;
        settings.defaults(given.params ?? given);
        const context = server.context ? ` · context ${count(server.context)}` : '';
        byId('model').textContent = server.model.split('/').at(-1) + context;
        notice(store.kept ? ''
            : 'This browser keeps nothing here: export what you need before you close the page.');
        show();
    } catch (e) {
        if (e.kind === 'key') askKey(e.message, greet);
        notice(`${e.message} `, button('Try again', { onclick: greet }));
    }
}

/* ---- the side, on a narrow window a drawer ---- */

function openSide() {
    document.body.classList.toggle('side-open', true);
    document.body.classList.remove('side-shut');
    byId('menu').setAttribute('aria-expanded', 'true');
    if (!narrow.matches) return;
    byId('main').inert = true;
    byId('side-close').focus();
}

function closeSide(byHand) {
    byId('side').inert = byId('main').inert = false;
    if (!narrow.matches && !byHand) return;
    const was = document.body.classList.contains('side-open');
    document.body.classList.remove('side-open');
    if (!narrow.matches) document.body.classList.add('side-shut');
    byId('menu').setAttribute('aria-expanded', 'false');
    if (was && byHand) byId('menu').focus();
}

const sideIsOpen = () => narrow.matches ? document.body.classList.contains('side-open')
    : !document.body.classList.contains('side-shut');
const toggleSide = () => sideIsOpen() ? closeSide(true) : openSide();

narrow.addEventListener('change', () => {
    document.body.classList.remove('side-open', 'side-shut');
    byId('main').inert = false;
    byId('menu').setAttribute('aria-expanded', String(sideIsOpen()));
});
byId('menu').addEventListener('click', toggleSide);
byId('menu').setAttribute('aria-expanded', String(!narrow.matches));
byId('side-close').addEventListener('click', () => closeSide(true));
addEventListener('click', (e) => {
    const outside = !byId('side').contains(e.target) && !byId('menu').contains(e.target);
    if (outside && narrow.matches && sideIsOpen()) closeSide(true);
});

/* ---- keys and buttons ---- */

const message = byId('message');

function sendMessage() {
    if (!message.value.trim() || answers.of(talk)) return;
    const text = message.value;
    message.value = '';
    keepDraft();
    fit(message);
    send(text);
    session.set('tessera.draft.new', null);
}

byId('composer').addEventListener('submit', (e) => {
    e.preventDefault();
    if (!answers.stop(talk)) sendMessage();
});
message.addEventListener('input', () => {
    fit(message);
    keepDraft();
});
message.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && !touch.matches) {
        e.preventDefault();
        sendMessage();
    } else if (e.key === 'ArrowUp' && !message.value) {
        e.preventDefault();
        editLast();
    }
});

function editLast() {
    if (answers.of(talk)) return;
    [...byId('messages').querySelectorAll('[data-edit]')].at(-1)?.click();
}

function againLast() {
    const last = talk.path().at(-1);
    if (last?.role === 'assistant') retry(last);
    else if (last) answer(last.n);
}

function togglePlan() {
    if (!planShown()) location.hash = '#plan';
    else location.hash = talk.messages.size ? `#c=${talk.meta.id}` : '';
}

function toMessage() {
    if (planShown()) togglePlan();
    message.focus();
}

const openSettings = () => settings.open(talk.meta.settings);
const openKeys = () => byId('keys').showModal();

byId('new-chat').addEventListener('click', newChat);
byId('open-plan').addEventListener('click', togglePlan);
byId('open-settings').addEventListener('click', openSettings);
byId('open-keys').addEventListener('click', openKeys);
byId('skip').addEventListener('click', (e) => {
    e.preventDefault();
    toMessage();
});

const SHORTCUTS = {
    KeyN: newChat, KeyL: toggleSide, KeyP: togglePlan, KeyS: openSettings, KeyK: openKeys, KeyI: toMessage,
    KeyR: againLast, KeyU: editLast,
    KeyC: () => [...byId('messages').querySelectorAll('.assistant [data-copy="text"]')].at(-1)?.click(),
};

addEventListener('keydown', (e) => {
    if (!talk || document.querySelector('dialog[open]')) return;
    if (e.key === 'Escape') {
        if (narrow.matches && sideIsOpen()) closeSide(true);
        else if (!answers.stop(talk) && planShown()) togglePlan();
        return;
    }
    if (!e.altKey || e.ctrlKey !== MAC || e.metaKey || !Object.hasOwn(SHORTCUTS, e.code)) return;
    e.preventDefault();
    SHORTCUTS[e.code]();
});

addEventListener('click', async (e) => {
    const b = e.target.closest?.('[data-copy]');
    if (!b) return;
    const text = b.textToCopy ? b.textToCopy() : b.closest('.code').querySelector('code').textContent;
    const ok = await copy(text);
    const word = ok ? 'Copied' : 'Not copied: the browser refused';
    heard(word);
    b.classList.add('copied');
    if (b.dataset.copy === 'code') b.textContent = ok ? 'Copied' : 'Refused';
    setTimeout(() => {
        b.classList.remove('copied');
        if (b.dataset.copy === 'code') b.textContent = 'Copy';
    }, 1500);
});

/* navigator.clipboard is there on https and localhost only. */
async function copy(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        const area = element('textarea', 'sr');
        area.value = text;
        const focused = document.activeElement;
        document.body.append(area);
        area.select();
        const ok = document.execCommand('copy');
        area.remove();
        focused?.focus();
        return ok;
    }
}

/* ---- other tabs, the end of the page ---- */

tabs?.addEventListener('message', async ({ data }) => {
    if (talk && data.id === talk.meta.id && !answers.jobs.has(data.id) && !document.querySelector('.editing')) {
        const meta = (await store.list()).find((c) => c.id === data.id);
        if (meta) talk = new Talk(meta, await store.load(meta));
        else if (data.removed) await newChat();
        show();
    }
    await list.draw();
});

/* The store may not come to it when the page goes away; this storage does, and the next page moves it. */
addEventListener('pagehide', () => {
    keepDraft();
    const left = [...answers.jobs.values()].map(({ talk: t, m }) => ({ meta: t.meta, m }));
    // where it is longer than the storage takes, what was saved within the last second is there
    if (left.length) local.set('tessera.left', JSON.stringify(left));
});

/* A page that comes back has all of it still, and goes on. */
addEventListener('pageshow', (e) => {
    if (e.persisted) local.set('tessera.left', null);
});

async function takeWhatWasLeft() {
    try {
        for (const { meta, m } of JSON.parse(local.get('tessera.left') || '[]')) await store.put(meta, [m]);
        local.set('tessera.left', null);
    } catch (e) {
        if (e instanceof SyntaxError) local.set('tessera.left', null);
        else notice(`This browser couldn’t keep an answer that was under way (${e?.message || 'no reason given'}).`);
    }
}

addEventListener('hashchange', route);

await takeWhatWasLeft();
await route();
greet();
