#!/usr/bin/env python3
"""The strings that tokenizers are compared on: the same bytes on every run and every Python.

Written to standard output as records: 4 bytes of length (little-endian), then the bytes. With
--text the first N strings are printed readably instead.
"""
import re
import struct
import sys

COUNT = 20480


class Rng:
    """splitmix64."""

    def __init__(self, seed):
        self.s = seed

    def next(self):
        self.s = (self.s + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self.s
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n

    def between(self, lo, hi):
        return lo + self.below(hi - lo + 1)

    def of(self, seq):
        return seq[self.below(len(seq))]

    def chance(self, one_in):
        return self.below(one_in) == 0


PROSE = {
    "en": "the rain stopped before noon and we walked down to the harbour where old boats lay "
          "drying; nobody had counted them since March, though everyone claimed to know whose "
          "they were. Don't you think it's odd that we'll never learn who'd built the first?",
    "de": "Über dem Fluß hing früh der Nebel, während größere Schiffe schon tuteten. Maßgeblich "
          "für die Verspätung war übrigens das Donaudampfschifffahrtsgesellschaftskapitänspatent.",
    "fr": "L'été dernier, où qu'on aille, les élèves s'ennuyaient ; aujourd'hui ça va déjà mieux, "
          "n'est-ce pas ? Le cœur d'un forêt d'Œuvre naïve reste près de nous.",
    "vi": "Hôm nay trời mưa nhiều, những người bán hàng ngồi dưới mái hiên uống trà và kể chuyện "
          "về những chuyến đi xa của họ đến miền núi phía bắc.",
    "tr": "İstanbul'un ışıkları söndüğünde balıkçılar çoktan yola çıkmıştı; kıyıda yalnızca üç "
          "köpek ile uyuyan bir çocuk kaldı. Türkiye'nin öbür ucunda gün ağarıyordu.",
    "ru": "Утром мы вышли из дома и долго шли вдоль реки, пока не увидели старую мельницу, у "
          "которой ещё вертелось колесо. Никто не знал, кто её построил.",
    "uk": "Їжак повільно перейшов дорогу, а ґава з паркана спостерігала за ним, ніби рахувала "
          "кожен його крок.",
    "el": "Το πρωί ο άνεμος έπεσε και η θάλασσα έγινε λεία σαν γυαλί. Οι ψαράδες γύρισαν με άδεια "
          "δίχτυα, όμως τραγουδούσαν.",
    "ar": "في الصباح خرج الأولاد إلى السوق ليشتروا الخبز والتمر، ثم جلسوا تحت شجرة الزيتون "
          "يستمعون إلى حكايات الشيخ. كانَ يومًا جميلًا؟",
    "he": "בבוקר יצאנו אל הגן לקטוף תפוחים, ואחר כך ישבנו בצל וסיפרנו זה לזה על הימים שעברו. "
          "שָׁלוֹם לכולם!",
    "fa": "صبح زود بچه‌ها به باغ رفتند و زیر درخت‌های گردو نشستند تا باران بند بیاید.",
    "hi": "सुबह की पहली बस में बैठकर वे गाँव पहुँचे, जहाँ नदी के किनारे मेला लगा था। बच्चों ने "
          "मिठाइयाँ खाईं और झूले झूले।",
    "bn": "নদীর ধারে বসে তারা সারাদিন গান গাইল, আর সন্ধ্যা হলে নৌকা করে বাড়ি ফিরে গেল।",
    "ta": "காலையில் மழை நின்றதும் குழந்தைகள் தெருவில் விளையாடத் தொடங்கினார்கள்.",
    "th": "เช้าวันนี้ฝนตกหนักมาก เราจึงนั่งดื่มชาอยู่ที่บ้านและฟังเรื่องเล่าของคุณยาย",
    "zh": "清晨的雾还没有散去，渔夫已经把船推到了河心。孩子们在岸上数着水鸟，一共二十七只。你说呢？",
    "ja": "朝早く起きて、駅までの道をゆっくり歩いた。コーヒーを飲みながら、新しい本を読むのが好きです。「そうですか？」",
    "ko": "아침에 일어나 창문을 열자 눈이 내리고 있었다. 아이들은 벌써 골목에서 눈사람을 만들었다.",
    "ka": "დილით წვიმა შეწყდა და ბავშვები ეზოში გამოვიდნენ სათამაშოდ.",
    "hy": "Առավոտյան ձյունը ծածկել էր ամբողջ գյուղը, և լռություն էր տիրում։",
    "am": "ጠዋት ላይ ዝናቡ ቆመና ልጆቹ ወደ ውጭ ወጥተው ተጫወቱ።",
    "my": "မနက်ခင်းမှာ မိုးတိတ်သွားပြီး ကလေးတွေ လမ်းပေါ်မှာ ကစားကြတယ်။",
}

CODE = [
    "for (size_t i = 0; i < n; i++) {\n        sum += a[i] * b[i];\n    }\n",
    "def walk(node, depth=0):\n    if node is None:\n        return\n\n\tprint('  ' * depth + node.name)\n",
    "<div class=\"row\"><a href='/x?y=1&amp;z=2'>It's</a></div>\r\n",
    "{\"id\": 12345, \"tags\": [\"a\", \"b\"], \"ok\": true, \"x\": -1.5e-10}",
    "SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;",
    "$ git log --oneline | head -n 20 && echo \"done\" >> /tmp/out.txt\n",
    "#include <stdio.h>\n\nint main(void)\n{\n    puts(\"hello\\n\");\n    return 0;\n}\n",
    "let f = |x: &str| -> Option<u32> { x.parse::<u32>().ok() };",
    "\\begin{equation} E = mc^2 \\label{eq:1} \\end{equation}",
    "x ^= x << 13; x ^= x >> 7; x ^= x << 17; // xorshift\n",
    "https://example.org/a/b%20c.html?q=caf%C3%A9#top",
    "class Foo<T extends Bar<T>> implements Baz { private final int[] xs = {1,2,3}; }",
    "camelCaseWordsAndHTTPServer snake_case_words SCREAMING_CASE kebab-case-x",
    "if [[ $x -gt 0 ]]; then\n  echo $((x--))\nfi",
    "a+=b;c-=d;e*=f;g/=h;i%=j;k&&l||!m;n?o:p;q==r;s!=t;u===v;w->x;y::z;..;...;",
]

SPECIAL = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<bos>", "<eos>",
    "<pad>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "<unused6241>", "<|begin_of_text|>",
    "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|file_sep|>", "<repo_name>", "<reponame>", "<file_sep>", "<jupyter_text>",
    "[INST]", "[/INST]", "<mask>", "<table>", "</table>", "<h1>", "</h1>", "<strong>", "<0x0A>",
    "[multimodal]", "<|user|>", "<|assistant|>", "<|end|>", "<｜end▁of▁sentence｜>",
    "<|reserved_special_token_17|>", "[EMPTY_3]", "▁", "▁▁▁", "<|", "|>", "<|im_", "im_end|>",
    "<|im_start|><|im_start|>", "<<|im_end|>>", "<|im_<|im_end|>end|>", "\n\n\n", "<!--", "-->",
    "<issue_start>", "<fim_prefix>", "<empty_output>",
]

ZWJ = "\u200d"
EMOJI = ["😀", "🤷🏽\u200d♀️", "👩\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "👍🏿", "🇩🇪", "🇫🇷🇯🇵",
         "1️⃣", "#️⃣", "❤️", "☺", "🧑🏻\u200d🚀", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
         "🫠", "🪿", "🫨", "👨\u200d💻", "⚽️", "✨", "\ufe0f", ZWJ, "🤦\u200d"]

MARKS = "\u0300\u0301\u0302\u0303\u0304\u0308\u030a\u0323\u0327\u0331\u0338\u20dd\u0653\u064b\u05b8\u093c\u094d\u09cd\u0e34\u3099\u309a"
DIGITS = ["0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "²³¹", "½¾", "ⅣⅫ", "一二三四五"]
WHITE = [" ", "  ", "    ", "\t", "\n", "\r\n", "\r", "\n\n", "\x0b", "\x0c", "\u00a0", "\u3000",
         "\u2028", "\u2003", "\u0085", "\u202f", "\u200b", "\ufeff", " " * 8, " " * 17, "\t\t\t"]
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'Re", "'ve", "'VE", "'m", "'M", "'ll", "'LL",
                "'lL", "'d", "'D", "’s", "'ſ", "'", "''", "'x", "'r", "'v", "'l", "n't"]
PUNCT = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
WIDE = "，。！？、；：「」『』（）【】《》…—～·“”‘’￥％＃＠＆＋－×÷=€£¥°§¶†‡•※→⇒∀∃∑√∞≈≠≤"

WORDS = {lang: text.split() for lang, text in PROSE.items()}
LANGS = sorted(WORDS)


def sentence(r):
    words = WORDS[r.of(LANGS)]
    if r.chance(3):
        lang = r.of(LANGS)
        start = r.below(max(1, len(PROSE[lang]) - 10))
        return PROSE[lang][start:start + r.between(1, 120)]
    n = r.between(1, 14)
    out = []
    for _ in range(n):
        w = r.of(words)
        if r.chance(9):
            w = r.of(WORDS[r.of(LANGS)])
        if r.chance(11):
            w = w.upper() if r.chance(2) else w.capitalize()
        out.append(w)
        if r.chance(12):
            out.append(str(r.below(100000)))
    return (" " if not r.chance(15) else "  ").join(out) + r.of(["", "", ".", "!", "?", "...", "。"])


def code(r):
    text = r.of(CODE)
    start = r.below(len(text)) if r.chance(2) else 0
    text = text[start:]
    if r.chance(3):
        text = "".join("    " * r.below(4) + line + "\n" for line in text.split("\n"))
    if r.chance(4):
        text += r.of(CODE)
    return text


def digits(r):
    out = ""
    for _ in range(r.between(1, 5)):
        alphabet = DIGITS[0] if not r.chance(4) else r.of(DIGITS)
        out += "".join(r.of(alphabet) for _ in range(r.between(1, 12)))
        out += r.of(["", " ", ".", ",", "-", "/", ":", "e+", "x", "%", "a"])
    return out


def marks(r):
    out = ""
    for _ in range(r.between(1, 12)):
        out += r.of("aeiouncsAEZ кияאבعلहकমকใกか") + "".join(
            r.of(MARKS) for _ in range(r.below(4)))
        out += r.of(["", "", " "])
    return out


def emoji(r):
    return "".join(r.of(EMOJI) + r.of(["", "", " ", ZWJ, "a", "!"]) for _ in range(r.between(1, 8)))


def white(r):
    out = ""
    for _ in range(r.between(1, 7)):
        out += "".join(r.of(WHITE) for _ in range(r.between(1, 3)))
        out += r.of(["", "", "x", "word", "1", "!", "É", "中", "\u0301"])
    return out


def long_word(r):
    kind = r.below(7)
    n = r.between(40, 300) if not r.chance(40) else r.between(1000, 2500)
    if kind == 0:
        return r.of("ax0é中-= \n") * n
    if kind == 1:
        return "".join(r.of("abcdefghijklmnopqrstuvwxyz") for _ in range(n))
    if kind == 2:
        return "".join(r.of("AaBbÉé") for _ in range(n))
    if kind == 3:
        return "".join(r.of(["ab", "abc", "the", "ing", "zz"]) for _ in range(n // 2))
    if kind == 4:
        return "".join(r.of("ACGT") for _ in range(n))
    if kind == 5:
        return "".join(r.of("0123456789abcdef") for _ in range(n))
    return "".join(r.of("เมียวการนมละที่") for _ in range(n))


def special(r):
    out = ""
    for _ in range(r.between(1, 6)):
        out += r.of(SPECIAL)
        out += r.of(["", "", " ", "  ", "\n", "user", " text ", "<", ">", "|", "é", "\t"])
    return out


def any_char(r):
    out = ""
    for _ in range(r.between(1, 20)):
        top = r.of([0x80, 0x250, 0x3000, 0x10000, 0x20000, 0x110000])
        cp = r.below(top)
        out += chr(cp) if not 0xD800 <= cp < 0xE000 else "?"
    return out


def soup(r):
    return "".join(r.of(PUNCT + PUNCT + WIDE + "aB1 \n") for _ in range(r.between(1, 40)))


def contractions(r):
    return "".join(r.of(["I", "you", "WE", "x", " ", "é", "1", "''"]) + r.of(CONTRACTIONS) +
                   r.of(["", " ", "a", "S"]) for _ in range(r.between(1, 6)))


def control(r):
    return "".join(chr(r.below(0x20)) if r.chance(2) else r.of(["a", " ", "\x7f", "é", "0"])
                   for _ in range(r.between(1, 12)))


KINDS = [sentence, sentence, sentence, code, digits, marks, emoji, white, long_word, special,
         special, any_char, soup, contractions, control]


def mixed(r):
    return "".join(r.of(KINDS)(r)[:60] for _ in range(r.between(2, 4)))


# What decodes to more than U+10FFFF: no two tokenizers agree on it.
TOO_LARGE = re.compile(rb"(\xf4[\x90-\xbf]|[\xf5-\xf7][\x80-\xbf])(?=[\x80-\xbf][\x80-\xbf])")


def damaged(r):
    """Bytes that are not UTF-8."""
    kind = r.below(4)
    if kind == 0:
        b = bytearray(r.below(256) for _ in range(r.between(1, 24)))
    else:
        b = bytearray(mixed(r).encode()[:80])
        for _ in range(r.between(1, 4)):
            at = r.below(len(b) + 1)
            if kind == 1 and at < len(b):
                b[at] = r.below(256)
            elif kind == 2 and at < len(b):
                del b[at]
            else:
                b[at:at] = r.of([b"\x80", b"\xc0\x80", b"\xc1\x81", b"\xed\xa0\x80", b"\xe2\x82",
                                 b"\xf0\x9f", b"\xf8\x88", b"\xff", b"\xe0\x80\x80", b"\xc3",
                                 b"\xf0\x80\x80\x80", b"\xed\xbf\xbf", b"\xc2\xa0\xc2"])
    return bytes(b)


def corpus():
    r = Rng(2026)
    for i in range(COUNT):
        k = r.below(100)
        if k < 14:
            b = damaged(r)
        elif k < 26:
            b = mixed(r).encode()
        else:
            b = r.of(KINDS)(r).encode()
        while TOO_LARGE.search(b):
            b = TOO_LARGE.sub(b"??", b)
        yield b


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "--text":
        for i, b in zip(range(int(sys.argv[2])), corpus()):
            print(i, repr(b.decode(errors="replace")))
        return
    for b in corpus():
        sys.stdout.buffer.write(struct.pack("<I", len(b)) + b)


if __name__ == "__main__":
    main()
