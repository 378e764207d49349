"""Questions with their answers, by which a model shows that it can tell one from another at all.

They are easy on purpose: a model that fails them has no prompt, no head or the wrong weights, or does not know the
language. How good a model is, they do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping

Pairs = tuple[tuple[str, str], ...]

PAIRS: Mapping[str, Pairs] = {
    "en": (
        ("Where is my parcel?", "You can track your parcel with the tracking number in the shipping mail."),
        ("How do I reset my password?", "To reset a forgotten password, open the login page and click 'reset'."),
        ("What is the capital of China?", "The capital of China is Beijing, a city of over twenty million people."),
        ("At what temperature does water boil?", "At sea level water boils at a temperature of 100 degrees Celsius."),
        ("Can I return shoes that do not fit?", "Shoes that do not fit can be returned within 30 days, unworn."),
        ("Who wrote Romeo and Juliet?", "William Shakespeare wrote the tragedy Romeo and Juliet around 1595."),
    ),
    "zh": (
        ("我的快递到哪里了？", "您可以用短信里的快递单号查询包裹到哪里了。"),
        ("怎样修改登录密码？", "修改登录密码请打开设置，进入账号安全页面。"),
        ("中国的首都是哪座城市？", "北京是中国的首都，人口超过两千万。"),
        ("水在多少度沸腾？", "在标准大气压下，水在一百摄氏度沸腾。"),
        ("鞋子不合脚可以退货吗？", "不合脚的鞋子在三十天内未穿过可以退货。"),
        ("《红楼梦》的作者是谁？", "一般认为《红楼梦》的作者是清代的曹雪芹。"),
    ),
}
