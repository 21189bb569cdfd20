"""placeholder"""
def write_html(report: dict) -> str:
    return "<html></html>"
