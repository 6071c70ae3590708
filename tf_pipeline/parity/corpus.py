r"""Texts on which tokenizers go wrong: thousands of them, written for this project or generated, the same everywhere.

Tables hold the seeds; generators vary and combine them. Nothing depends on the network, on the order of sets, or on the
Unicode tables of a Python version: only written text is normalized or cased, and ranges of code points are drawn
whether assigned or not. Random numbers come from ``random.Random(seed).random()``, whose sequence Python promises to
keep; ``choice`` and ``shuffle`` carry no such promise.

Lone surrogates (U+D800 to U+DFFF) are left out: they have no UTF-8 form, so tokenizers refuse them with an error.
Invisible characters are written as escapes.
"""

import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

SEED = 20_240_229
FORMS = ("NFC", "NFD", "NFKC", "NFKD")

# Three sentences a language, about much the same small things.
SENTENCES = {
    "English": ("The bridge was closed because of the rain.", "Where is my blue umbrella?",
                "On Tuesday we bought 12 loaves of bread and three lamps; nobody asked why!"),
    "French": ("Le pont fut fermé à cause de la pluie.", "Où est mon parapluie bleu, s'il vous plaît ?",
               "L'œuvre du garçon naïf coûtait 12 €, hélas."),
    "German": ("Die Brücke war wegen des Regens gesperrt.", "Wo ist mein blauer Regenschirm?",
               "Größere Straßenfußgängerüberwege heißen hier schlicht „Übergänge“."),
    "Spanish": ("El puente estaba cerrado por la lluvia.", "¿Dónde está mi paraguas azul?",
                "¡Mañana el pingüino cumplirá doce años!"),
    "Portuguese": ("A ponte foi fechada por causa da chuva.", "Onde está o meu guarda-chuva azul?",
                   "Amanhã, às três, os irmãos comprarão pães e maçãs."),
    "Italian": ("Il ponte era chiuso per la pioggia.", "Dov'è il mio ombrello blu?",
                "Perché più caffè? Così è la città, però."),
    "Polish": ("Most był zamknięty z powodu deszczu.", "Gdzie jest mój niebieski parasol?",
               "Żółty źrebak zjadł trzydzieści łyżek świeżej śmietany."),
    "Czech": ("Most byl kvůli dešti uzavřen.", "Kde je můj modrý deštník?",
              "Řeřicha, křeček a ďábel šli o půlnoci ke kašně."),
    "Hungarian": ("A híd az eső miatt zárva volt.", "Hol van a kék esernyőm?",
                  "Kedden tizenkét kenyeret és három tűzpiros csőrű madarat vettünk."),
    "Romanian": ("Podul era închis din cauza ploii.", "Unde este umbrela mea albastră?",
                 "Și țăranii își împart pâinea între ei."),
    "Turkish": ("Köprü yağmur yüzünden kapalıydı.", "Mavi şemsiyem nerede?",
                "İstanbul'da ılık bir ışık, Iğdır'da iğne ipliği gördük."),
    "Finnish": ("Silta oli suljettu sateen takia.", "Missä on sininen sateenvarjoni?",
                "Tiistaina ostimme kaksitoista leipää, ja yöllä söimme nekin."),
    "Icelandic": ("Brúin var lokuð vegna rigningar.", "Hvar er bláa regnhlífin mín?",
                  "Það æfði sig í þrjá daga á Þingvöllum."),
    "Vietnamese": ("Cây cầu bị đóng vì trời mưa.", "Chiếc ô màu xanh của tôi ở đâu?",
                   "Thứ ba chúng tôi mua mười hai ổ bánh mì và ba cái đèn."),
    "Swahili": ("Daraja lilifungwa kwa sababu ya mvua.", "Mwavuli wangu wa bluu uko wapi?",
                "Jumanne tulinunua mikate kumi na miwili."),
    "Russian": ("Мост закрыли из-за дождя.", "Где мой синий зонт?",
                "Во вторник мы купили 12 буханок хлеба и ещё три лампы."),
    "Ukrainian": ("Міст зачинили через дощ.", "Де моя синя парасолька?",
                  "Їжак з'їв п'ять яблук, а ґава лише дивилася."),
    "Serbian": ("Мост је био затворен због кише.", "Где је мој плави кишобран?",
                "Љубица, Њега и Џемал купили су ђевреке."),
    "Bulgarian": ("Мостът беше затворен заради дъжда.", "Къде е синият ми чадър?",
                  "Във вторник купихме дванадесет хляба."),
    "Greek": ("Η γέφυρα έκλεισε λόγω της βροχής.", "Πού είναι η μπλε ομπρέλα μου;",
              "Ο Οδυσσέας αγόρασε ψωμί, κι ο γάιδαρός του αϋπνίες."),
    "Armenian": ("Կամուրջը փակ էր անձրևի պատճառով։", "Որտե՞ղ է իմ կապույտ հովանոցը։",
                 "Երեքշաբթի մենք տասներկու հաց գնեցինք։"),
    "Georgian": ("ხიდი წვიმის გამო დაკეტილი იყო.", "სად არის ჩემი ლურჯი ქოლგა?",
                 "სამშაბათს თორმეტი პური ვიყიდეთ."),
    "Arabic": ("كان الجسر مغلقًا بسبب المطر.", "أين مظلتي الزرقاء؟",
               "اِشْتَرَيْنَا ١٢ رَغِيفًا يَوْمَ الثُّلَاثَاءِ."),
    "Persian": ("پل به خاطر باران بسته بود.", "چتر آبی من کجاست؟",
                "سه\u200cشنبه نان\u200cها را خریدیم و می\u200cرویم."),
    "Urdu": ("بارش کی وجہ سے پل بند تھا۔", "میری نیلی چھتری کہاں ہے؟", "ہم نے منگل کو بارہ روٹیاں خریدیں۔"),
    "Hebrew": ("הגשר היה סגור בגלל הגשם.", "איפה המטרייה הכחולה שלי?",
               "בְּיוֹם שְׁלִישִׁי קָנִינוּ 12 כִּכְּרוֹת לֶחֶם."),
    "Hindi": ("बारिश के कारण पुल बंद था।", "मेरा नीला छाता कहाँ है?", "मंगलवार को हमने १२ रोटियाँ ख़रीदीं।"),
    "Bengali": ("বৃষ্টির কারণে সেতু বন্ধ ছিল।", "আমার নীল ছাতা কোথায়?", "মঙ্গলবার আমরা বারোটা রুটি কিনেছি।"),
    "Punjabi": ("ਮੀਂਹ ਕਰਕੇ ਪੁਲ ਬੰਦ ਸੀ।", "ਮੇਰੀ ਨੀਲੀ ਛਤਰੀ ਕਿੱਥੇ ਹੈ?", "ਅਸੀਂ ਬਾਰਾਂ ਰੋਟੀਆਂ ਖ਼ਰੀਦੀਆਂ।"),
    "Gujarati": ("વરસાદને કારણે પુલ બંધ હતો.", "મારી વાદળી છત્રી ક્યાં છે?", "અમે બાર રોટલી ખરીદી."),
    "Tamil": ("மழையால் பாலம் மூடப்பட்டது.", "என் நீல குடை எங்கே?", "செவ்வாய்க்கிழமை பன்னிரண்டு ரொட்டிகள் வாங்கினோம்."),
    "Telugu": ("వర్షం వల్ల వంతెన మూసివేశారు.", "నా నీలం గొడుగు ఎక్కడ ఉంది?", "మేము పన్నెండు రొట్టెలు కొన్నాము."),
    "Thai": ("สะพานปิดเพราะฝนตก", "ร่มสีน้ำเงินของฉันอยู่ที่ไหน", "วันอังคารเราซื้อขนมปัง ๑๒ ก้อนกับโคมไฟสามดวง"),
    "Khmer": ("ស្ពានត្រូវបានបិទដោយសារភ្លៀង។", "ឆ័ត្រពណ៌ខៀវរបស់ខ្ញុំនៅឯណា?", "យើងទិញនំប៉័ងនៅថ្ងៃអង្គារ។"),
    "Amharic": ("ድልድዩ በዝናብ ምክንያት ተዘግቶ ነበር።", "ሰማያዊ ጃንጥላዬ የት አለ?", "ማክሰኞ አሥራ ሁለት ዳቦ ገዛን።"),
    "Chinese": ("因为下雨,桥关闭了。", "我的蓝色雨伞在哪里?", "星期二我们买了十二个面包和3盏灯。"),
    "Chinese, traditional": ("因為下雨，橋關閉了。", "我的藍色雨傘在哪裡？", "星期二我們買了十二個麵包。"),
    "Japanese": ("雨のため、橋は閉鎖されていた。", "私の青い傘はどこですか？",
                 "火曜日にパンを１２個とランプを３つ買いました。"),
    "Korean": ("비 때문에 다리가 닫혔다.", "내 파란 우산은 어디에 있나요?", "화요일에 우리는 빵 열두 개를 샀습니다."),
    "Esperanto": ("La ponto estis fermita pro la pluvo.", "Kie estas mia blua ombrelo?",
                  "Ĉiuĵaŭde ŝi aĉetas ĝuste dek du panojn."),
}  # fmt: skip

COMPATIBILITY = (
    "ﬁnd the ﬂow, oﬃce, eﬀort, baﬄe, ﬅyle", "① ② ⑳ Ⓐ ⓩ ㊙", "½ ¼ ⅞ ↉", "x² + y³ = z⁻¹", "H₂SO₄",
    "5 ㎏, 3 ㎡, 20 ℃, 2 ㏎", "Ｆｕｌｌｗｉｄｔｈ\u3000１２３！", "ﾊﾝｶｸ ｶﾞｷﾞｸﾞ", "™ ℠ © ® ℡ №", "ℌ ℵ ℝ ℕ ℘ ℏ",
    "\u212b \u00c5 A\u030a", "\u2126 \u03a9", "\u212a K", "ǆ ǅ Ǆ ǉ ǌ ĳ Ĳ ŉ", "ﷺ ﷲ ﻻ ﻼ", "Ⅳ ⅷ Ⅻ", "… ‥ ․",
    "㍻ ㌔ ㍿", "\ufb1d \ufb4f \ufb2a", "𝔘𝔫𝔦 𝒞𝑜𝒹𝑒 𝟘𝟙𝟚 𝚖𝚘𝚗𝚘", "\u0958\u095b\u09dc", "\u0f43\u0f69", "\u1e9b\u0323",
    "\ud55c\uad6d\uc5b4 \uac01 \ud7a3", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u3131\u314f\u3147 \uffa1\uffc2",
    "\u0340\u0341\u0343\u0344", "\uf900\ufa0e\ufa10", "\u2f00\u2f08\u2fd5", "\u2000\u2001",
    "\u1fee \u0385 \u00a8\u0301", "\u2adc \u226e \u2260 <\u0338 =\u0338",
)  # fmt: skip

CASING = (
    "Straße", "STRASSE", "GROẞ", "ẞß", "İstanbul", "ISPARTA ıspanak", "i\u0307 I\u0307", "ΟΔΥΣΣΕΥΣ",
    "Σς σ ςΣ", "ΑΣ.", "ǅep ǆ Ǆ", "ŉ", "ǰ J\u030c", "ﬃ ﬄ ﬆ", "ΐ ΰ", "և ﬓ ﬗ", "ᾳ ᾼ ᾲ", "\u1e9e\u1e9f",
    "\u017fee \u017f", "Ⓦⓦ ⅷⅧ", "ᏣᎳᎩ ꮳꮃꭹ", "Ა ა Ⴀ ⴀ", "\U00010400\U00010428", "\U0001e900\U0001e922",
    "IJssel Ĳssel ĳs", "McDONALD iPhone eBAY", "ÀÉÎÕÜ àéîõü", "ЁЖИК ёжик", "Ω ω ꙍ Ꙍ",
    "\u0345\u03b1 \u0399",
)  # fmt: skip

WRITING = (
    "def f(x): return {k: v**2 for k, v in x.items()}", "if (a && !b || c != d) { i++; }  // why?",
    "a<-b; c->d; e=>f; g:=h", "for(int i=0;i<n;++i)\tsum+=v[i];",
    "SELECT * FROM t WHERE name = 'O''Hara' -- done", "#include <vector>\n#define X(a) #a",
    "lambda x, *y, **z: (x, y, z)", "\\begin{align} e^{i\\pi} + 1 &= 0 \\\\ \\end{align}",
    "$\\frac{\\partial f}{\\partial x}$", "\\alpha\\beta_{i,j}^{2}",
    "<p class=\"a b\">Rain &amp; wind &lt;3 &#8364; &nbsp;</p>", "<br/><!-- nothing --><a href='#x'>",
    "</div></div></div>", "# Title\n\n- *one*\n- **two**\n\n> `code`", "[link](https://example.org/a_(b))",
    "| a | b |\n|---|:-:|", "```python\nprint('hi')\n```",
    "{\"rain\": [1, 2.5e-3, null], \"wind\": {\"a\\u00e9\": true}}", "[[1,2],[3,[4,[]]]]",
    "key: value\n  - item: \"x\"\n", "a,b;c\t\"d \"\"e\"\"\"",
    "https://example.org:8080/a/b.html?q=r%20s&t=%C3%BC#frag", "www.example.com/~user",
    "ftp://user:pw@host.example", "mailto:first.last+tag@sub.example.co.uk", "me@example.org, you@example.org",
    "http://пример.example/путь", "xn--bcher-kva.example", "C:\\Users\\me\\file.txt",
    "/usr/local/bin/../lib", "file:///tmp/a%20b", "192.168.0.1 ::1 fe80::1%eth0", "00:1A:2B:3C:4D:5E",
    "v1.2.3-rc.4+build.5", "2024-02-29T23:59:60Z", "29/02/2024", "12:34:56.789", "0xDEADBEEF 0b1010 0o777",
    "sha256:9f86d081884c7d65", "550e8400-e29b-41d4-a716-446655440000", "aGVsbG8gd29ybGQ=", "%d %s %05.2f %%",
    "${HOME}/$USER `date` $(pwd)", "^(?:[a-z]+|\\d{2,})$", "s/\\s+$//g", "@name #tag @a_b #été #雨",
    "#rain #RAIN #rain-coat ##", "RT @x: lol :-) ;) <3 xD", "^_^ (╯°□°)╯︵ ┻━┻ ¯\\_(ツ)_/¯",
    "!!! ??? ?! !? ... .... ,,, ;;; :::", "((())) [[]] {{}} <<>> «» ‹›",
    "“double” ‘single’ „low“ ‚low‘ 「角」『角』", "\"\"\" ''' ``` ´´´", "*** ___ ~~~ === +++ ---",
    "& && &amp; &amp;amp;", "a/b\\c|d", "© 2024 – all rights…", "one,two,three.four;five:six",
    "end.Start of next.And next", "Dr. A. B. Smith, Ph.D., e.g. U.S.A.", "e.g.,i.e.;etc.)", "¿Qué? ¡No!",
    "§ 5 ¶ 6 † ‡ • ‰ ‱", "→ ← ↔ ⇒ ⇔ ↦ ⟶", "∀x∈ℝ ∃y: x²≥0 ∧ ¬(y<x)",
    "∑∏∫∮√∛∞≈≠≤≥±×÷∂∇", "α≠β, Δx→0 ⇒ f′(x)", "│├─┤┬┴┼ ▀▄█░▒▓",
    "♠♥♦♣ ♩♪♫♬ ☀☁☂☃", "⠓⠑⠇⠇⠕ 𝄞𝄢 🀄🂡", "€1 £2 ¥3 ₹4 ₽5 ₩6 ₿7 ฿8 ₪9 ¢10 ¤11 ﷼12", "$1,234.56 USD",
    "1.234,56 €", "CHF 1'234.50", "(12.5%)", "-40°C = -40°F", "AAAAaaaaAAAA", "aAaAaAaA", "sOmE wEiRd cAsInG",
    "l33t sp34k", "Zażółć gęślą", "co-operate re-enter", "café cafe\u0301",
)  # fmt: skip

NUMBERS = (
    "0", "00", "-1", "+7", "3.14159", "1,000,000", "1 000 000", "1.000.000,00", "12,34,567", "1_000_000", "1e10",
    "6.022E+23", ".5", "5.", "1/2", "50%", "1st 2nd 3rd 4th", "007", "1:30", "1-2-3", "1–2", "10x", "x10",
    "a1b2c3", "3D", "4K", "H2O", "CO2", "+1 (555) 010-9999", "1²", "10⁻⁴", "−5", "1\u202f234", "1\u00a0234",
    "99999999999999999999999999", "0.1+0.2!=0.3", "MMXXIV", "12am", "7pm-9pm", "2024", "24/7",
)  # fmt: skip

EMOJI = (
    "😀", "🤗🤗", "👍\U0001f3fd", "👋\U0001f3fb👋\U0001f3ff", "👩\u200d👩\u200d👧\u200d👦",
    "👨\U0001f3fe\u200d💻", "🏳\ufe0f\u200d🌈", "🏴\u200d☠\ufe0f", "\U0001f1eb\U0001f1f7",
    "\U0001f1ef\U0001f1f5\U0001f1ee\U0001f1f3", "\U0001f1eb", "1\ufe0f\u20e3", "#\ufe0f\u20e3*\ufe0f\u20e3",
    "❤\ufe0f", "❤\ufe0e", "❤", "☺\ufe0f☺\ufe0e", "🧑\u200d🤝\u200d🧑", "👁\ufe0f\u200d🗨\ufe0f",
    "\U0001fae0\U0001fae5\U0001fabf",
    "©\ufe0f ™\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", "\U0001f3fd",
    "\u200d", "\ufe0f", "🕵\U0001f3fc\u200d♀\ufe0f", "👩\u200d", "\u200d👩", "🐈\u200d⬛",
    "⛹\U0001f3ff\u200d♂\ufe0f",
)  # fmt: skip

SPACES = (
    "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2063\u2064\u206a\u206f"
    "\u3164\ufe00\ufe0f\ufeff\uffa0\ufff9\ufffb\ufffc\ufffd\U000e0001\U000e0020\U000e0100\U0001d173"
)
# Private use, unassigned, noncharacters and the edges of planes.
STRANGE = (
    "\ue000\uf8ff\ufdd0\ufdef\ufffe\uffff\u0378\u2fe0\u1fff\u0e80\U0001ffff\U0002fffe\U000effff\U000f0000\U000ffffd\U00100000"
    "\U0010fffd\U0010fffe\U0010ffff\U00010000\U0001f9ff\U00020000\U0002a6d6\U00030000\U0003134a\U000313af\U00040000\U000e01ef"
)
MARKS = (
    "\u0300\u0301\u0303\u0307\u0308\u030a\u0323\u0327\u0328\u0334\u0338\u0345\u0360\u20dd\u20e3\u0591"
    "\u064e\u0651\u093c\u0e49\u3099\u1abe"
)
BIDI_PAIRS = (
    "\u202a\u202c",
    "\u202b\u202c",
    "\u202d\u202c",
    "\u202e\u202c",
    "\u2066\u2069",
    "\u2067\u2069",
    "\u2068\u2069",
)
# First digit of ten in a row.
ZERO_DIGITS = (
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xE50, 0xED0, 0xF20,
    0x1040, 0x17E0, 0x1810, 0xFF10, 0x104A0, 0x11066, 0x1D7CE, 0x1D7D8, 0x1FBF0,
)  # fmt: skip

SPECIAL_TOKENS = (
    "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<s>", "</s>", "<unk>", "<pad>", "<mask>", "<|endoftext|>",
    "<|im_start|>", "[unused0]", "<extra_id_0>", "<bos>", "<eos>",
)  # fmt: skip
# {} is the token, [CLS] say.
SPECIAL_USES = (
    "{}", "{}{}", "{} {}", " {} ", "The {} was closed.", "the{}rain", "{}.", "({})", "\n{}\t", "{}\u0301",
    "\u200b{}\u200b", "{}{}{} wind {}",
)  # fmt: skip

MARKERS = (
    "##ing", "## ing", "walk##ing", "##", "###", "#", "\u2581x", "\u2581", "\u2581\u2581", "rain\u2581wind", "Ġx",
    "Ġ", "ĠĠ", "Ċ", "ĉ", "čĊ", "ĠtheĊ", "x</w>", "</w>", "@@ x@@", "▁the", "Ġthe", "##the", "<0x0A>",
    "<0xE2><0x96>", "\\u00e9", "&#xe9;", "\\x00", "\\n", "\\t\\r\\n",
)  # fmt: skip

CONTRACTED = (
    "it{}s", "don{}t", "we{}re", "they{}ve", "I{}m", "she{}ll", "he{}d", "y{}all{}d{}ve", "rock {}n{} roll",
    "{}Twas", "dogs{} bones", "O{}Hara",
)  # fmt: skip
APOSTROPHES = ("'", "\u2019", "\u2018", "\u02bc", "`", "\u00b4", "\uff07", " '", "' ", "''", "\u2032")
DASHES = "-\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043\u058a\u05be\u30fc\ufe58\uff0d~"
DASHED = ("well{}known", "rain {} wind", "{}x", "x{}", "10{}20", "{0}{0}help", "a{0}b{0}c{0}d")
IDENTIFIERS = ("rain", "bridge", "closed", "http", "id", "x2", "Straße", "été")

# First and last code point of the ranges that are drawn from, unassigned ones included.
BLOCKS = (
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x17F), (0x180, 0x24F), (0x250, 0x2AF), (0x2B0, 0x2FF), (0x300, 0x36F),
    (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF), (0x700, 0x74F),
    (0x780, 0x7BF), (0x7C0, 0x7FF), (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xA7F), (0xA80, 0xAFF),
    (0xB00, 0xB7F), (0xB80, 0xBFF), (0xC00, 0xC7F), (0xC80, 0xCFF), (0xD00, 0xD7F), (0xD80, 0xDFF),
    (0xE00, 0xE7F), (0xE80, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF),
    (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1400, 0x167F), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1D00, 0x1DBF),
    (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x20CF), (0x2100, 0x218F), (0x2190, 0x22FF),
    (0x2300, 0x23FF), (0x2460, 0x25FF), (0x2600, 0x27BF), (0x2800, 0x28FF), (0x2C00, 0x2DFF), (0x2E80, 0x2FDF),
    (0x3000, 0x30FF), (0x3130, 0x318F), (0x3200, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF),
    (0xA640, 0xA69F), (0xA720, 0xA7FF), (0xAB70, 0xABBF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFAFF),
    (0xFB00, 0xFDFF), (0xFE00, 0xFE4F), (0xFE70, 0xFEFF), (0xFF00, 0xFFFF), (0x10000, 0x100FF),
    (0x10330, 0x1034F), (0x10400, 0x1044F), (0x10900, 0x1091F), (0x11000, 0x1107F), (0x12000, 0x123FF),
    (0x13000, 0x1342F), (0x1D100, 0x1D1FF), (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1EE00, 0x1EEFF),
    (0x1F000, 0x1F0FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F9FF), (0x20000, 0x2A6DF),
    (0xE0000, 0xE007F), (0xF0000, 0x10FFFF),
)  # fmt: skip


def adversarial_texts(minimum: int = 2000) -> list[str]:
    """Distinct texts, in the same order on every machine.

    Args:
        minimum: minimum number of texts; missing ones are drawn from all of Unicode but the surrogates.
    """
    rng = random.Random(SEED)
    # A dict keeps the first of equal texts, in order, which a set would not.
    texts = dict.fromkeys(text for part in _parts(rng) for text in part)
    while len(texts) < minimum:
        texts[_random_text(rng, BLOCKS, 24)] = None
    return list(texts)


def _parts(rng: random.Random) -> Iterator[Iterable[str]]:
    # The first texts stay first: a short prefix of the corpus is a fair sample of languages.
    yield sentences()
    yield ("", "a", ".", "\u00e9", "I", "Rain.")
    yield WRITING
    yield NUMBERS
    yield _in_forms(COMPATIBILITY)
    yield _cased()
    yield _spaced()
    yield _with_characters(INVISIBLE + STRANGE)
    yield _with_controls()
    yield _marked()
    yield _both_directions()
    yield _digits()
    yield _emoji()
    yield _special_tokens()
    yield _markers()
    yield (pattern.replace("{}", mark) for pattern in CONTRACTED for mark in APOSTROPHES)
    yield (pattern.replace("{0}", dash).replace("{}", dash) for pattern in DASHED for dash in DASHES)
    yield _identifiers()
    yield _as_other_bytes()
    yield _long()
    yield _homoglyphs()
    yield (_random_text(rng, (block,), 14) for block in BLOCKS for _ in range(3))
    yield (_random_text(rng, BLOCKS, 24) for _ in range(100))
    yield (_random_words(rng) for _ in range(250))


def sentences() -> list[str]:
    """The written sentences of every language."""
    return [sentence for group in SENTENCES.values() for sentence in group]


def _in_forms(seeds: Sequence[str]) -> Iterator[str]:
    """Each seed, and each Unicode normalization form of it, which may look the same but is not."""
    for seed in seeds:
        yield seed
        yield from (unicodedata.normalize(form, seed) for form in FORMS)


def _cased() -> Iterator[str]:
    for text in CASING:
        yield from (text, text.lower(), text.upper(), text.title(), text.casefold(), text.swapcase())
    for group in SENTENCES.values():
        yield from _in_forms(group[2:])
        yield from (group[0].upper(), group[1].lower())


def _spaced() -> Iterator[str]:
    for space in SPACES:
        yield from (
            space,
            space * 5,
            f"rain{space}wind",
            f"{space}rain {space}{space} wind{space}",
            f"{space}. {space}!",
        )
    yield from ("\r\n", "\n\n\n", "rain\r\nwind\r\n\r\n", " \t \n \u00a0 ", SPACES, "rain" + SPACES + "wind", " " * 200)
    yield from (
        "\ufeffrain",
        "rain\ufeff",
        "\ufeff\ufeff",
        "  leading",
        "trailing  ",
        "two  spaces   three",
        "a \u200b b",
    )


def _with_characters(characters: str) -> Iterator[str]:
    for character in characters:
        yield from (character, f"ra{character}in", f"the {character} bridge", character * 3 + "雨")


def _with_controls() -> Iterator[str]:
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        yield from (chr(code), f"rain{chr(code)}wind")
    yield "".join(map(chr, range(0x20)))
    yield "".join(map(chr, range(0x7F, 0xA0)))


def _marked() -> Iterator[str]:
    for mark in MARKS:
        yield from (mark, f"a{mark}", f"{mark}a", f"rai{mark}n wi{mark}nd", f" {mark} ", "e" + mark * 20)
    yield from ("".join(letter + MARKS[:height] for letter in "Zalgo") for height in (2, 5, 12))
    # Canonically equal, in another order.
    yield from ("q\u0307\u0323", "q\u0323\u0307", "\u1ee9 \u01b0\u0301 u\u031b\u0301 u\u0301\u031b")


def _both_directions() -> Iterator[str]:
    first = [group[0] for group in SENTENCES.values()]
    for i, sentence in enumerate(first):
        other = first[(i + 7) % len(first)]
        start, end = BIDI_PAIRS[i % len(BIDI_PAIRS)]
        yield from (f"{sentence} {other}", f"{sentence[:9]}{other[:9]}", f"{start}{sentence}{end} ({other})")
    for start, end in BIDI_PAIRS:
        yield from (f"abc {start}אבג 123{end} def", f"{start}{start}x{end}", f"مطر {end}{start} rain")


def _digits() -> Iterator[str]:
    for zero in ZERO_DIGITS:
        digits = "".join(chr(zero + i) for i in range(10))
        yield from (digits, f"{digits[1]},{digits[:3]}.{digits[5]}", f"x{digits[3]}{digits[4]} = 12")
    yield from ("①②③", "一二三十百千万億", "零〇壹貳", "௰௱௲", "፩፪፫", "\U00010107\U00010108", "Ⅰ Ⅱ Ⅲ", "1٢३4")


def _emoji() -> Iterator[str]:
    for emoji in EMOJI:
        yield from (emoji, f"rain {emoji}, wind", f"rain{emoji}wind", emoji * 3)
    yield "".join(EMOJI)


def _special_tokens() -> Iterator[str]:
    for i, token in enumerate(SPECIAL_TOKENS):
        yield from (use.replace("{}", token) for use in SPECIAL_USES)
        yield from (
            token.lower(),
            token.upper(),
            token.title(),
            token[:-1],
            token[1:],
            f"{token[0]} {token[1:-1]} {token[-1]}",
        )
        yield from (f"{token}{SPECIAL_TOKENS[(i + 1) % len(SPECIAL_TOKENS)]}", f"{token} rain {SPECIAL_TOKENS[i - 3]}")
    yield "".join(SPECIAL_TOKENS)
    yield " ".join(SPECIAL_TOKENS)


def _markers() -> Iterator[str]:
    for marker in MARKERS:
        yield from (marker, f"rain {marker}", f"{marker}{marker} wind", f"x{marker}y")


def _identifiers() -> Iterator[str]:
    for i, word in enumerate(IDENTIFIERS):
        words = [word, IDENTIFIERS[i - 1], IDENTIFIERS[i - 3]]
        yield from (joint.join(words) for joint in ("_", "__", "-", ".", "/", "::", "\\", "+", "=", "@", "#", "·"))
        camel = "".join(part.capitalize() for part in words)
        yield from (
            camel,
            word + camel,
            f"_{word}",
            f"__{word}__",
            f"{word}_",
            word.upper() + camel,
            f"${word}",
            f"#{camel}",
        )


def _as_other_bytes() -> Iterator[str]:
    """Text whose bytes were read in another encoding, and letters that byte-level vocabularies use for bytes."""
    for group in list(SENTENCES.values())[1::2]:
        yield group[1].encode("utf-8").decode("latin-1")
    yield "".join(map(chr, range(0xA0, 0x100)))
    yield "".join(map(chr, range(0x100, 0x144)))  # where byte-level BPE puts the bytes that do not print
    yield from (
        "â€™ Ã© Â£ ï»¿",
        "rain\u0000wind",
        "caf\ufffd",
        "\ufffd\ufffd\ufffd",
        "Ã",
        "\u00c2\u00a0",
        "ð\u009f\u0098\u0080",
    )
    # The last and first character of each length in UTF-8.
    yield "\u007f\u0080 \u07ff\u0800 \uffff\U00010000 \U0010ffff"


def _long() -> Iterator[str]:
    for character in ("a", "1", ".", "-", "é", "雨", "б", "ا", "😀", "\u0301", "#", "_"):
        yield from (character * 99, character * 100, character * 101, character * 700)
    yield "Donaudampfschifffahrtsgesellschaftskapitänswitwenrente" * 3
    yield "ab" * 400
    yield "x" * 5000
    yield " ".join(["rain"] * 1500)
    yield " ".join(sentences())
    yield "".join(sentences()[::3])


def _homoglyphs() -> Iterator[str]:
    """Latin words with a letter from another script that looks alike."""
    alike = {"a": "\u0430", "e": "\u0435", "o": "\u03bf", "i": "\u0456", "c": "\u0441", "d": "\u0501"}
    for word in ("bridge", "closed", "umbrella", "rain coat"):
        yield from (word.replace(latin, other) for latin, other in alike.items())
        yield word.translate(str.maketrans(alike))


def _pick(rng: random.Random, items: Sequence):
    return items[int(rng.random() * len(items))]


def _random_text(rng: random.Random, blocks: Sequence[tuple[int, int]], most: int) -> str:
    """Characters of blocks that are in turn drawn, with a space here and there."""
    characters = []
    for _ in range(2 + int(rng.random() * (most - 1))):
        first, last = _pick(rng, blocks)
        characters.append(" " if rng.random() < 0.12 else chr(first + int(rng.random() * (last - first + 1))))
    return "".join(characters)


def _random_words(rng: random.Random) -> str:
    """Words of all languages, spaces, emoji, numbers and special tokens, one after the other."""
    words = " ".join(sentences()).split(" ")
    parts = []
    for _ in range(2 + int(rng.random() * 14)):
        table = _pick(rng, (words, words, words, words, NUMBERS, EMOJI, SPECIAL_TOKENS, MARKERS, CASING))
        parts += [_pick(rng, table), " " if rng.random() < 0.8 else _pick(rng, ("", SPACES[13], "\n", "-", ", "))]
    return "".join(parts[:-1])
