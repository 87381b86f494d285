/* store.js - conversations, in this browser's IndexedDB and nowhere else.
 *
 * A conversation is {id, title, created, updated, head, settings}, its messages are
 * {conversation, n, parent, role, content, ...}. Messages form a tree (talk.js): `head` is the last
 * message of what is shown. A message's number is the time it was made, or one more than the last:
 * tabs that add to one conversation at a time don't overwrite each other's.
 *
 * Where there is no IndexedDB (some private windows) everything is in memory, which `kept` says. */

const FORMAT = 'tessera-chats';
const LIMIT = 100000; // messages of a conversation in a file
const MAX_NUMBER = 2 ** 52;

function asked(request) {
    return new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
    });
}

function finished(transaction) {
    return new Promise((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
}

export async function openStore() {
    try {
        const request = indexedDB.open('tessera', 1);
        request.onupgradeneeded = () => {
            request.result.createObjectStore('conversations', { keyPath: 'id' });
            request.result.createObjectStore('messages', { keyPath: ['conversation', 'n'] });
        };
        const db = await asked(request);
        // Another tab may need a newer form of it.
        db.onversionchange = () => db.close();
        return new Store(new Disk(db), true);
    } catch {
        return new Store(new Memory(), false);
    }
}

class Disk {
    constructor(db) {
        this.db = db;
    }

    list() {
        return asked(this.db.transaction('conversations').objectStore('conversations').getAll());
    }

    messages(id) {
        const range = IDBKeyRange.bound([id, 0], [id, Infinity]);
        return asked(this.db.transaction('messages').objectStore('messages').getAll(range));
    }

    put(conversation, messages) {
        const t = this.db.transaction(['conversations', 'messages'], 'readwrite');
        t.objectStore('conversations').put(conversation);
        for (const m of messages) t.objectStore('messages').put(m);
        return finished(t);
    }

    remove(id) {
        const t = this.db.transaction(['conversations', 'messages'], 'readwrite');
        t.objectStore('conversations').delete(id);
        t.objectStore('messages').delete(IDBKeyRange.bound([id, 0], [id, Infinity]));
        return finished(t);
    }
}

class Memory {
    constructor() {
        this.conversations = new Map();
        this.all = new Map(); // id -> Map of n -> message
    }

    async list() {
        return structuredClone([...this.conversations.values()]);
    }

    async messages(id) {
        return structuredClone([...(this.all.get(id)?.values() ?? [])]);
    }

    async put(conversation, messages) {
        const { id } = conversation;
        this.conversations.set(id, structuredClone(conversation));
        if (!this.all.has(id)) this.all.set(id, new Map());
        for (const m of messages) this.all.get(id).set(m.n, structuredClone(m));
    }

    async remove(id) {
        this.conversations.delete(id);
        this.all.delete(id);
    }
}

class Store {
    constructor(place, kept) {
        this.place = place;
        this.kept = kept;
    }

    /* The newest first. */
    async list() {
        return (await this.place.list()).sort((a, b) => b.updated - a.updated);
    }

    async load(conversation) {
        const messages = new Map();
        for (const m of await this.place.messages(conversation.id)) messages.set(m.n, m);
        return messages;
    }

    put(conversation, messages = []) {
        return this.place.put(conversation, messages);
    }

    remove(id) {
        return this.place.remove(id);
    }

    async export(conversations) {
        const out = [];
        for (const c of conversations) {
            const { id, ...rest } = c;
            const messages = await this.place.messages(id);
            out.push({ ...rest, messages: messages.map(({ conversation, ...m }) => m) });
        }
        return { format: FORMAT, version: 1, conversations: out };
    }

    /* Adds what is in a file's text as new conversations; gives them. Throws a sentence. */
    async import(text) {
        let file;
        try {
            file = JSON.parse(text);
        } catch {
            throw new Error('This file isn’t JSON.');
        }
        if (file?.format !== FORMAT || !Array.isArray(file.conversations))
            throw new Error('This file holds no conversations exported from here.');
        if (file.version !== 1) throw new Error(`This file is of version ${file.version}; known is 1.`);
        const read = file.conversations.map(readConversation);
        for (const { conversation, messages } of read) await this.put(conversation, messages);
        return read.map((r) => r.conversation);
    }
}

export function newConversation(settings) {
    const now = Date.now();
    return { id: newId(), title: '', created: now, updated: now, head: -1, settings };
}

/* crypto.randomUUID is for secure contexts only; getRandomValues is everywhere. */
function newId() {
    const random = crypto.getRandomValues(new Uint8Array(12));
    return Array.from(random, (b) => b.toString(16).padStart(2, '0')).join('');
}

/* ---- files: nothing in them is taken as what it claims to be ---- */

const text = (v) => typeof v === 'string' ? v : '';
const number = (v, or) => Number.isFinite(v) ? v : or;

function readConversation(c, i) {
    const where = `Conversation ${i + 1} of this file`;
    if (!Array.isArray(c?.messages)) throw new Error(`${where} has no messages.`);
    if (c.messages.length > LIMIT) throw new Error(`${where} has more than ${LIMIT} messages.`);
    const conversation = newConversation(readSettings(c.settings));
    conversation.title = text(c.title).slice(0, 200);
    conversation.created = number(c.created, conversation.created);
    const known = new Set();
    const messages = c.messages.map((m) => readMessage(m, where, conversation.id, known));
    // Where the file doesn't say it, what is shown ends with the last message.
    conversation.head = known.has(c.head) ? c.head : messages.at(-1)?.n ?? -1;
    return { conversation, messages };
}

/* A message's parent comes before it, so there are no circles. */
function readMessage(m, where, id, known) {
    if (!m || !['user', 'assistant', 'tool'].includes(m.role))
        throw new Error(`${where} has a message that is of nobody.`);
    if (!Number.isInteger(m.n) || m.n < 0 || m.n > MAX_NUMBER || known.has(m.n))
        throw new Error(`${where} has messages that aren’t numbered.`);
    if (m.parent !== -1 && !(known.has(m.parent) && m.parent < m.n))
        throw new Error(`${where} has a message that follows none.`);
    known.add(m.n);
    const out = { conversation: id, n: m.n, parent: m.parent, role: m.role, content: text(m.content),
        time: number(m.time, 0) };
    for (const name of ['reasoning', 'finish', 'error', 'model', 'tool_call_id'])
        if (typeof m[name] === 'string') out[name] = m[name];
    if (Array.isArray(m.tool_calls)) out.tool_calls = m.tool_calls.filter((t) => t).map(readCall);
    if (m.speeds && typeof m.speeds === 'object') out.speeds = readNumbers(m.speeds);
    return out;
}

function readCall(t) {
    return { id: text(t.id), type: 'function',
        function: { name: text(t.function?.name), arguments: text(t.function?.arguments) } };
}

function readNumbers(o) {
    return Object.fromEntries(Object.entries(o).filter(([, v]) => Number.isFinite(v)));
}

function readSettings(s) {
    const thinking = ['on', 'off'].includes(s?.thinking) ? s.thinking : '';
    return { system: text(s?.system), tools: text(s?.tools), thinking,
        sampling: readNumbers(s?.sampling ?? {}) };
}
