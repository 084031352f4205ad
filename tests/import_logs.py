"""Hand-written lines in the layouts of the public logs."""

from collections.abc import Sequence
from pathlib import Path

AVAZU_HEADER = (
    "id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,device_ip,"
    "device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21\n"
)


def criteo_line(label: int, numbers: Sequence[int | None], ids: Sequence[str | None] | None = None) -> str:
    named = [f"{n:08x}" for n in range(26)] if ids is None else ids
    fields = [label, *numbers, *named]
    return "\t".join("" if field is None else str(field) for field in fields) + "\n"


def avazu_line(
    number: int, click: int, hour: str, *, device_id: str = "a99f214a", ad: int = 15706, site: str = "1fbe01fe"
) -> str:
    return (
        f"{1000 + number},{int(click)},{hour},1005,0,{site},f3845767,28905ebd,ecad2386,7801e8d9,07d7df22,{device_id},"
        f"ip,model,1,2,{ad},320,50,1722,0,35,-1,79\n"
    )


def write_taobao(folder: Path) -> None:
    """Three good impressions that are not in time order, one bad one, and a bad row of ad_feature.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "raw_sample": """user,time_stamp,adgroup_id,pid,nonclk,clk
9,1494137702,7,430539_1007,1,0
581738,1494137644,1,430548_1007,1,0
914836,1494137700,2,430539_1007,0,1
449818,1494638778,3,430548_1007,1,1
""",
        "ad_feature": """adgroup_id,cate_id,campaign_id,customer,brand,price
1,6406,83237,1,NULL,170.0
2,392,69735,9,95471,cheap
2,392,69735,9,95471,69.9
""",
        # the public file's last name ends with a space
        "user_profile": """userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,\
occupation,new_user_class_level{space}
581738,0,5,2,5,,3,0,3
914836,19,3,2,3,2,3,0,
""",
        "behavior_log": """user,time_stamp,btag,cate,brand
581738,1493741626,pv,4520,NULL
581738,1493741625,pv,6250,91286
581738,1494137644,buy,1,1
914836,1493741625,cart,12,3
""",
    }
    for name, text in files.items():
        (folder / f"{name}.csv").write_text(text.replace("{space}", " "))
