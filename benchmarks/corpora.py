"""Three collections to try estimates on: two that are on every developer's machine, and one in 16 languages."""

# ruff: noqa: RUF001 - other alphabets are what it is about

from __future__ import annotations

import random
import sysconfig
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_SENTENCES: dict[str, tuple[str, ...]] = {
    "English": (
        "The ferry left the harbour at {n} minutes past seven, although the fog had not lifted.",
        "Customers who ordered before Monday will receive their parcel within {n} working days.",
        "Nobody could explain why the pump had stopped; the engineer replaced a valve and wrote a short report.",
        "Rents in the old town rose by {n} per cent, while wages stayed where they were.",
        "She thanked the council for its patience and asked for a further meeting in spring.",
        "The invoice names the wrong address, so accounting has sent it back twice.",
        "Heavy rain closed two mountain roads, and the bus to the valley ran {n} minutes late.",
    ),
    "German": (
        "Die Fähre verließ den Hafen mit {n} Minuten Verspätung, obwohl sich der Nebel noch nicht gelichtet hatte.",
        "Kundinnen und Kunden, die vor Montag bestellt haben, erhalten ihr Paket innerhalb von {n} Werktagen.",
        "Niemand konnte erklären, weshalb die Pumpe stehen geblieben war; der Ingenieur tauschte ein Ventil aus.",
        "Die Mieten in der Altstadt stiegen um {n} Prozent, während die Löhne gleich blieben.",
        "Sie dankte dem Gemeinderat für seine Geduld und bat um eine weitere Sitzung im Frühjahr.",
        "Auf der Rechnung steht die falsche Anschrift, deshalb hat die Buchhaltung sie zweimal zurückgeschickt.",
        "Starker Regen sperrte zwei Bergstraßen, und der Bus ins Tal fuhr {n} Minuten später.",
    ),
    "French": (
        "Le bac a quitté le port avec {n} minutes de retard, bien que le brouillard ne se soit pas levé.",
        "Les clients qui ont commandé avant lundi recevront leur colis sous {n} jours ouvrés.",
        "Personne ne pouvait expliquer pourquoi la pompe s'était arrêtée ; l'ingénieure a remplacé une soupape.",
        "Les loyers de la vieille ville ont augmenté de {n} %, alors que les salaires n'ont pas bougé.",
        "Elle a remercié le conseil de sa patience et demandé une nouvelle réunion au printemps.",
        "La facture porte une mauvaise adresse, et la comptabilité l'a renvoyée deux fois.",
        "De fortes pluies ont fermé deux routes de montagne, et l'autocar de la vallée a eu {n} minutes de retard.",
    ),
    "Spanish": (
        "El transbordador salió del puerto con {n} minutos de retraso, aunque la niebla aún no se había levantado.",
        "Los clientes que hicieron su pedido antes del lunes recibirán el paquete en {n} días laborables.",
        "Nadie supo explicar por qué se había parado la bomba; la ingeniera cambió una válvula y escribió un informe.",
        "Los alquileres del casco antiguo subieron un {n} por ciento, mientras los sueldos siguieron igual.",
        "Agradeció al ayuntamiento su paciencia y pidió otra reunión en primavera.",
        "La factura lleva una dirección equivocada y contabilidad la ha devuelto dos veces.",
    ),
    "Portuguese": (
        "A balsa deixou o porto com {n} minutos de atraso, embora o nevoeiro ainda não tivesse levantado.",
        "Os clientes que encomendaram antes de segunda-feira receberão a encomenda em {n} dias úteis.",
        "Ninguém soube explicar por que a bomba tinha parado; a engenheira trocou uma válvula e fez um relatório.",
        "As rendas no centro histórico subiram {n} por cento, enquanto os salários ficaram na mesma.",
        "A fatura traz a morada errada, e a contabilidade já a devolveu duas vezes.",
    ),
    "Polish": (
        "Prom opuścił port z opóźnieniem {n} minut, chociaż mgła jeszcze nie opadła.",
        "Klienci, którzy złożyli zamówienie przed poniedziałkiem, otrzymają paczkę w ciągu {n} dni roboczych.",
        "Nikt nie potrafił wyjaśnić, dlaczego pompa stanęła; inżynierka wymieniła zawór i napisała krótki raport.",
        "Czynsze na starym mieście wzrosły o {n} procent, a płace pozostały takie same.",
        "Na fakturze jest zły adres, więc księgowość odesłała ją już dwa razy.",
    ),
    "Turkish": (
        "Sis henüz kalkmamış olsa da vapur limandan {n} dakika gecikmeyle ayrıldı.",
        "Pazartesiden önce sipariş veren müşteriler paketlerini {n} iş günü içinde alacak.",
        "Pompanın neden durduğunu kimse açıklayamadı; mühendis bir vanayı değiştirdi ve kısa bir rapor yazdı.",
        "Eski şehirde kiralar yüzde {n} arttı, ücretler ise olduğu gibi kaldı.",
        "Faturada yanlış adres var, bu yüzden muhasebe onu iki kez geri gönderdi.",
    ),
    "Russian": (
        "Паром вышел из порта с опозданием на {n} минут, хотя туман ещё не рассеялся.",
        "Покупатели, сделавшие заказ до понедельника, получат посылку в течение {n} рабочих дней.",
        "Никто не мог объяснить, почему остановился насос; инженер заменила клапан и написала короткий отчёт.",
        "Аренда в старом городе подорожала на {n} процентов, а зарплаты остались прежними.",
        "Она поблагодарила совет за терпение и попросила о новой встрече весной.",
        "В счёте указан неверный адрес, поэтому бухгалтерия дважды отправляла его обратно.",
    ),
    "Greek": (
        "Το πλοίο έφυγε από το λιμάνι με καθυστέρηση {n} λεπτών, αν και η ομίχλη δεν είχε διαλυθεί.",
        "Οι πελάτες που παρήγγειλαν πριν από τη Δευτέρα θα παραλάβουν το δέμα τους σε {n} εργάσιμες ημέρες.",
        "Κανείς δεν μπορούσε να εξηγήσει γιατί σταμάτησε η αντλία· η μηχανικός άλλαξε μια βαλβίδα.",
        "Τα ενοίκια στην παλιά πόλη αυξήθηκαν κατά {n} τοις εκατό, ενώ οι μισθοί έμειναν ίδιοι.",
    ),
    "Arabic": (
        "غادرت العبّارة الميناء متأخرة {n} دقيقة، مع أن الضباب لم ينقشع بعد.",
        "سيستلم الزبائن الذين طلبوا قبل يوم الاثنين طرودهم خلال {n} أيام عمل.",
        "لم يستطع أحد أن يشرح سبب توقف المضخة؛ استبدلت المهندسة صماما وكتبت تقريرا قصيرا.",
        "ارتفعت الإيجارات في المدينة القديمة بنسبة {n} في المئة، وبقيت الأجور على حالها.",
        "في الفاتورة عنوان خاطئ، ولذلك أعادها قسم المحاسبة مرتين.",
    ),
    "Hebrew": (
        "המעבורת עזבה את הנמל באיחור של {n} דקות, אף שהערפל עדיין לא התפזר.",
        "לקוחות שהזמינו לפני יום שני יקבלו את החבילה בתוך {n} ימי עסקים.",
        "איש לא ידע להסביר מדוע המשאבה נעצרה; המהנדסת החליפה שסתום וכתבה דוח קצר.",
        "שכר הדירה בעיר העתיקה עלה ב-{n} אחוזים, ואילו המשכורות נשארו כפי שהיו.",
    ),
    "Hindi": (
        "कोहरा अभी छँटा नहीं था, फिर भी नाव बंदरगाह से {n} मिनट की देरी से निकल गई।",
        "जिन ग्राहकों ने सोमवार से पहले ऑर्डर दिया था, उन्हें {n} कार्य दिवसों में अपना पार्सल मिल जाएगा।",
        "कोई नहीं बता सका कि पंप क्यों रुक गया; इंजीनियर ने एक वाल्व बदला और छोटी रिपोर्ट लिखी।",
        "पुराने शहर में किराया {n} प्रतिशत बढ़ गया, जबकि वेतन वही रहा।",
        "बिल पर गलत पता लिखा है, इसलिए लेखा विभाग उसे दो बार लौटा चुका है।",
    ),
    "Thai": (
        "เรือข้ามฟากออกจากท่าช้าไป {n} นาที แม้ว่าหมอกจะยังไม่จางลง",
        "ลูกค้าที่สั่งซื้อก่อนวันจันทร์จะได้รับพัสดุภายใน {n} วันทำการ",
        "ไม่มีใครอธิบายได้ว่าทำไมเครื่องสูบน้ำจึงหยุดทำงาน วิศวกรเปลี่ยนวาล์วและเขียนรายงานสั้น ๆ",
        "ค่าเช่าในเมืองเก่าเพิ่มขึ้นร้อยละ {n} ในขณะที่ค่าจ้างยังเท่าเดิม",
        "ใบแจ้งหนี้ระบุที่อยู่ผิด ฝ่ายบัญชีจึงส่งกลับไปแล้วสองครั้ง",
    ),
    "Chinese": (
        "虽然雾还没有散，渡轮还是晚了{n}分钟离开港口。",
        "星期一以前下单的顾客将在{n}个工作日内收到包裹。",
        "没有人能解释水泵为什么停了；工程师换了一个阀门，并写了一份简短的报告。",
        "老城区的房租上涨了百分之{n}，而工资没有变化。",
        "她感谢市议会的耐心，并请求在春天再开一次会。",
        "发票上的地址写错了，所以会计部门已经退回了两次。",
    ),
    "Japanese": (
        "霧はまだ晴れていなかったが、フェリーは{n}分遅れて港を出た。",
        "月曜日より前に注文したお客様には、{n}営業日以内に荷物が届きます。",
        "ポンプがなぜ止まったのか誰も説明できず、技術者は弁を交換して短い報告書を書いた。",
        "旧市街の家賃は{n}パーセント上がったが、賃金は変わらなかった。",
        "請求書の住所が間違っているため、経理はすでに二度送り返している。",
    ),
    "Korean": (
        "안개가 아직 걷히지 않았지만 여객선은 {n}분 늦게 항구를 떠났다.",
        "월요일 전에 주문한 고객은 영업일 기준 {n}일 안에 소포를 받게 됩니다.",
        "펌프가 왜 멈췄는지 아무도 설명하지 못했고, 기술자는 밸브를 교체한 뒤 짧은 보고서를 썼다.",
        "구시가지의 집세는 {n}퍼센트 올랐지만 임금은 그대로였다.",
        "청구서에 주소가 잘못 적혀 있어서 회계 부서가 두 번이나 돌려보냈다.",
    ),
}


def multilingual(count: int, seed: int = 5) -> list[str]:
    """So many documents of 0.3 to 6 KB, each in one of 16 languages."""
    chance = random.Random(seed)
    languages = list(_SENTENCES)
    texts = []
    for _ in range(count):
        sentences = _SENTENCES[chance.choice(languages)]
        length = int(300 * 20 ** chance.random())
        text, size = [], 0
        while size < length:
            sentence = chance.choice(sentences).format(n=chance.randint(2, 90))
            text.append(sentence + chance.choice((" ", " ", " ", "\n\n")))
            size += len(sentence.encode())
        texts.append("".join(text).strip())
    return texts


def readmes() -> list[str]:
    """The descriptions of the installed packages, in the order of their names."""
    found = {item.metadata["Name"]: item.metadata.get_payload() for item in metadata.distributions()}  # type: ignore[attr-defined]  # an email.message.Message
    return [text for _, text in sorted(found.items()) if isinstance(text, str) and text.strip()]


def standard_library() -> list[str]:
    """The modules of Python's standard library, its tests left out."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [path for path in sorted(root.rglob("*.py")) if not {"test", "tests", "site-packages"} & set(path.parts)]
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def halves(texts: Sequence[str], seed: int = 3) -> tuple[list[str], list[str]]:
    """The documents of two windows, by lot."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    return order[: len(order) // 2], order[len(order) // 2 :]
