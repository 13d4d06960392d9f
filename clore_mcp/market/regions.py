"""Reads countries and regions, as people write them, into ISO 3166 two-letter codes.

Continents follow the United Nations' list (M49): Turkey, Cyprus and the Caucasus are in Asia. "eu" is the Union with
its 27 members. "europe" is the continent without Russia and Belarus, because people who ask for Europe rarely mean
them.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from clore_mcp.errors import ArgumentInvalid
from clore_mcp.text import clean

_AFRICA = (
    "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW IO KE KM LR LS LY MA MG ML MR MU MW MZ NA NE "
    "NG RE RW SC SD SH SL SN SO SS ST SZ TD TF TG TN TZ UG YT ZA ZM ZW"
)
_ASIA = (
    "AE AF AM AZ BD BH BN BT CN CY GE HK ID IL IN IQ IR JO JP KG KH KP KR KW KZ LA LB LK MM MN MO MV MY NP OM PH PK PS "
    "QA SA SG SY TH TJ TL TM TR TW UZ VN YE"
)
_EUROPE = (
    "AD AL AT AX BA BE BG BY CH CZ DE DK EE ES FI FO FR GB GG GI GR HR HU IE IM IS IT JE LI LT LU LV MC MD ME MK MT NL "
    "NO PL PT RO RS RU SE SI SJ SK SM UA VA XK"
)
_NORTH_AMERICA = (
    "AG AI AW BB BL BM BQ BS BZ CA CR CU CW DM DO GD GL GP GT HN HT JM KN KY LC MF MQ MS MX NI PA PM PR SV SX TC TT US "
    "VC VG VI"
)
_SOUTH_AMERICA = "AR BO BR BV CL CO EC FK GF GS GY PE PY SR UY VE"
_OCEANIA = "AS AU CC CK CX FJ FM GU HM KI MH MP NC NF NR NU NZ PF PG PN PW SB TK TO TV UM VU WF WS"
_UNION = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
_CENTRAL_AMERICA = "BZ CR GT HN NI PA SV"

# By its names: the first is shown, the others are understood too.
_REGIONS: Final = {
    "africa african": _AFRICA,
    "asia asian apac": _ASIA,
    "europe european": " ".join(code for code in _EUROPE.split() if code not in ("RU", "BY")),
    "eu european-union": _UNION,
    "north-america north-american": _NORTH_AMERICA,
    "south-america south-american": _SOUTH_AMERICA,
    "oceania australasia": _OCEANIA,
    "america americas": f"{_NORTH_AMERICA} {_SOUTH_AMERICA}",
    "latin-america latam": f"{_CENTRAL_AMERICA} {_SOUTH_AMERICA} MX CU DO PR",
    "central-america": _CENTRAL_AMERICA,
    "nordics nordic": "AX DK FI FO IS NO SE",
    "scandinavia": "DK NO SE",
    "baltics": "EE LT LV",
    "benelux": "BE LU NL",
    "balkans": "AL BA BG GR HR ME MK RO RS SI XK",
    "dach": "AT CH DE",
    "middle-east": "AE BH CY EG IL IQ IR JO KW LB OM PS QA SA SY TR YE",
    "east-asia": "CN HK JP KP KR MN MO TW",
    "southeast-asia": "BN ID KH LA MM MY PH SG TH TL VN",
    "south-asia": "AF BD BT IN LK MV NP PK",
    "central-asia": "KG KZ TJ TM UZ",
    "cis": "AM AZ BY KG KZ MD RU TJ UZ",
}
REGIONS: Final = {names.split()[0]: frozenset(codes.split()) for names, codes in _REGIONS.items()}
_REGION_NAMES: Final = {name: names.split()[0] for names in _REGIONS for name in names.split()}
COUNTRIES: Final = frozenset(
    " ".join((_AFRICA, _ASIA, _EUROPE, _NORTH_AMERICA, _SOUTH_AMERICA, _OCEANIA, "AQ")).split()
)
# One country per item: code, then its names.
_NAMES: Final = """
AE united-arab-emirates uae emirates|AF afghanistan|AL albania|AM armenia|AO angola|AR argentina|AT austria
AU australia|AZ azerbaijan|BA bosnia bosnia-and-herzegovina|BD bangladesh|BE belgium|BG bulgaria|BH bahrain|BO bolivia
BR brazil brasil|BW botswana|BY belarus|CA canada|CD dr-congo|CH switzerland swiss|CI ivory-coast cote-d-ivoire
CL chile|CM cameroon|CN china prc
CO colombia|CR costa-rica|CU cuba|CY cyprus|CZ czechia czech-republic czech|DE germany deutschland|DK denmark
DO dominican-republic|DZ algeria|EC ecuador|EE estonia|EG egypt|ES spain|ET ethiopia|FI finland|FJ fiji|FR france
GB uk united-kingdom great-britain britain england scotland wales|GE georgia|GH ghana|GL greenland|GR greece
GT guatemala|HK hong-kong hongkong|HN honduras|HR croatia|HU hungary|ID indonesia|IE ireland|IL israel|IN india
IQ iraq|IR iran|IS iceland|IT italy|JM jamaica|JO jordan|JP japan|KE kenya|KG kyrgyzstan|KH cambodia|KP north-korea
KR south-korea korea republic-of-korea|KW kuwait|KZ kazakhstan|LA laos|LB lebanon|LI liechtenstein|LK sri-lanka
LT lithuania|LU luxembourg|LV latvia|LY libya|MA morocco|MC monaco|MD moldova|ME montenegro|MG madagascar
MK north-macedonia macedonia|MM myanmar burma|MN mongolia|MO macau macao|MT malta|MU mauritius|MV maldives|MX mexico
MY malaysia|MZ mozambique|NA namibia|NG nigeria|NI nicaragua|NL netherlands holland|NO norway|NP nepal|NZ new-zealand
OM oman|PA panama|PE peru|PH philippines|PK pakistan|PL poland|PR puerto-rico|PS palestine|PT portugal|PY paraguay
QA qatar|RE reunion|RO romania|RS serbia|RU russia russian-federation|RW rwanda|SA saudi-arabia saudi|SD sudan|SE sweden
SG singapore|SI slovenia|SK slovakia|SN senegal|SV el-salvador|SY syria|TH thailand|TJ tajikistan|TM turkmenistan
TN tunisia|TR turkey turkiye|TW taiwan|TZ tanzania|UA ukraine|UG uganda
US usa united-states united-states-of-america u-s-a u-s|UY uruguay|UZ uzbekistan|VE venezuela|VN vietnam viet-nam
XK kosovo|YE yemen|ZA south-africa|ZM zambia|ZW zimbabwe
"""
_BY_NAME: Final = {name: item.split()[0] for item in re.split(r"[|\n]", _NAMES.strip()) for name in item.split()[1:]}
_ISO_3: Final = """
AD:AND AE:ARE AF:AFG AG:ATG AI:AIA AL:ALB AM:ARM AO:AGO AQ:ATA AR:ARG AS:ASM AT:AUT AU:AUS AW:ABW AX:ALA AZ:AZE BA:BIH
BB:BRB BD:BGD BE:BEL BF:BFA BG:BGR BH:BHR BI:BDI BJ:BEN BL:BLM BM:BMU BN:BRN BO:BOL BQ:BES BR:BRA BS:BHS BT:BTN BV:BVT
BW:BWA BY:BLR BZ:BLZ CA:CAN CC:CCK CD:COD CF:CAF CG:COG CH:CHE CI:CIV CK:COK CL:CHL CM:CMR CN:CHN CO:COL CR:CRI CU:CUB
CV:CPV CW:CUW CX:CXR CY:CYP CZ:CZE DE:DEU DJ:DJI DK:DNK DM:DMA DO:DOM DZ:DZA EC:ECU EE:EST EG:EGY EH:ESH ER:ERI ES:ESP
ET:ETH FI:FIN FJ:FJI FK:FLK FM:FSM FO:FRO FR:FRA GA:GAB GB:GBR GD:GRD GE:GEO GF:GUF GG:GGY GH:GHA GI:GIB GL:GRL GM:GMB
GN:GIN GP:GLP GQ:GNQ GR:GRC GS:SGS GT:GTM GU:GUM GW:GNB GY:GUY HK:HKG HM:HMD HN:HND HR:HRV HT:HTI HU:HUN ID:IDN IE:IRL
IL:ISR IM:IMN IN:IND IO:IOT IQ:IRQ IR:IRN IS:ISL IT:ITA JE:JEY JM:JAM JO:JOR JP:JPN KE:KEN KG:KGZ KH:KHM KI:KIR KM:COM
KN:KNA KP:PRK KR:KOR KW:KWT KY:CYM KZ:KAZ LA:LAO LB:LBN LC:LCA LI:LIE LK:LKA LR:LBR LS:LSO LT:LTU LU:LUX LV:LVA LY:LBY
MA:MAR MC:MCO MD:MDA ME:MNE MF:MAF MG:MDG MH:MHL MK:MKD ML:MLI MM:MMR MN:MNG MO:MAC MP:MNP MQ:MTQ MR:MRT MS:MSR MT:MLT
MU:MUS MV:MDV MW:MWI MX:MEX MY:MYS MZ:MOZ NA:NAM NC:NCL NE:NER NF:NFK NG:NGA NI:NIC NL:NLD NO:NOR NP:NPL NR:NRU NU:NIU
NZ:NZL OM:OMN PA:PAN PE:PER PF:PYF PG:PNG PH:PHL PK:PAK PL:POL PM:SPM PN:PCN PR:PRI PS:PSE PT:PRT PW:PLW PY:PRY QA:QAT
RE:REU RO:ROU RS:SRB RU:RUS RW:RWA SA:SAU SB:SLB SC:SYC SD:SDN SE:SWE SG:SGP SH:SHN SI:SVN SJ:SJM SK:SVK SL:SLE SM:SMR
SN:SEN SO:SOM SR:SUR SS:SSD ST:STP SV:SLV SX:SXM SY:SYR SZ:SWZ TC:TCA TD:TCD TF:ATF TG:TGO TH:THA TJ:TJK TK:TKL TL:TLS
TM:TKM TN:TUN TO:TON TR:TUR TT:TTO TV:TUV TW:TWN TZ:TZA UA:UKR UG:UGA UM:UMI US:USA UY:URY UZ:UZB VA:VAT VC:VCT VE:VEN
VG:VGB VI:VIR VN:VNM VU:VUT WF:WLF WS:WSM XK:XKX YE:YEM YT:MYT ZA:ZAF ZM:ZMB ZW:ZWE
"""
_BY_ISO_3: Final = {pair[3:].lower(): pair[:2] for pair in _ISO_3.split()}
_NEAREST: Final = 3
_ACCENTS: Final = re.compile("[\u0300-\u036f]")


def codes(words: Iterable[str], argument: str = "countries") -> frozenset[str]:
    """Return all countries that `words` name ("de", "Germany", "europe"). Raises ArgumentInvalid for another."""
    found: set[str] = set()
    for word in words:
        for part in word.split(","):
            if part.strip():
                found |= _one(part, argument)
    return frozenset(found)


def _one(word: str, argument: str) -> frozenset[str]:
    letters = _ACCENTS.sub("", unicodedata.normalize("NFKD", clean(word, 60))).lower()
    key = re.sub(r"[^a-z0-9]+", "-", letters).strip("-").removeprefix("the-")
    if key.upper() in COUNTRIES:
        return frozenset((key.upper(),))
    if code := _BY_NAME.get(key) or _BY_ISO_3.get(key):
        return frozenset((code,))
    if key in _REGION_NAMES:
        return REGIONS[_REGION_NAMES[key]]
    near = difflib.get_close_matches(key, [*_BY_NAME, *REGIONS], n=_NEAREST, cutoff=0.6)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ArgumentInvalid(
        f"{argument}: no country or region is called '{clean(word, 40)}'.{meant}",
        hint="Give ISO two-letter codes (DE, US), country names, or regions: " + ", ".join(sorted(REGIONS)) + ".",
    )
